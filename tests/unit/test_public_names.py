"""The public API is what this says; a change here is a change for users, and stands in the CHANGELOG."""

from __future__ import annotations

import jararaca_ws
import jararaca_ws.testing

PUBLIC = """
AppInterceptor AppInterceptorWithLifecycle AppTransactionContext AuthenticationFailed AuthenticationTimeout
BackendUnavailable Backoff BadConnectionId BadMetadata BadName BadRoom BadUserId BatchingBackend BroadcastFunc
BrokerUnavailable CallError CallFailed CallTimeout CloseCode ConfigurationError ConnectionClosed
ConnectionState Container ContextError CookieToken CountingBackend Delete Delivery DuplicateEndpoint
DuplicateMessageId DuplicateRoomPattern Entry EntryFunc ErrorCategory Figures GapFunc GapReportingBackend Get
HandlerTimeout HeaderToken Health HealthInterceptor HistoryBackend HistoryMessage HttpTransactionData IllegalTransition
InstanceStatistics InvalidMessage JWTChecker JararacaError KeepingBackend LimitReached LimitStore
LimitingBackend MemoryMessageBus MemoryWebSocketConnectionBackend Message MessageBus MessageBusController
MessageBusInterceptor MessageBusTransactionData MessageBusWorker MessageError MessageHandler MessageIdUnset
MessageNotEncodable MessageOf MessagePublisher MessageToken Microservice NotBound NotCarried OnDisconnect
OriginNotAllowed Patch PermissionDenied Post PresenceBackend PresenceChange PresenceEntry PresenceLost PresenceMember
PresenceSettings PresenceStore PresentedToken Publication Put QueryTicket RabbitMQMessageBus Rate
RateLimitInterceptor RateLimited RateLimitingBackend Receive RedisWebSocketConnectionBackend Replay
ReportsHealth RestController Retention Room RoomHistory SendFunc StageFull StartableBackend Statistics
StatusInterceptor StreamPosition SubprotocolToken SubscribingBackend TokenExpired TransactionData Unavailable
UnitOfWorkOver UnknownMessage UnresolvableDependency Unroutable User WebSocketConnection
WebSocketConnectionBackend WebSocketConnectionManager WebSocketEndpoint WebSocketInterceptor WebSocketMessage
WebSocketMessageBase WebSocketMessageSender WebSocketRequest WebSocketRouter WebSocketSettings
WebSocketTransactionData connection_by create_http_server current_connection ephemeral health_router latest
provide_bus provide_publisher provide_ws_manager provide_ws_message_sender recoverable status_router use_bus
use_publisher use_ws_manager use_ws_message_sender
""".split()  # noqa: SIM905  # ninety names read better so


def test_the_public_names():
    assert sorted(jararaca_ws.__all__) == PUBLIC
    assert all(hasattr(jararaca_ws, name) for name in jararaca_ws.__all__)


def test_the_public_names_for_tests():
    assert jararaca_ws.testing.__all__ == [
        "BACKEND_CONTRACT",
        "FaultProxy",
        "InLoopWebSocket",
        "WebSocketClosed",
        "connect",
        "lifespan",
    ]
