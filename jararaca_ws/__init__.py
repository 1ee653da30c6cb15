"""Distributed, typed WebSockets for interceptor-based FastAPI microservices.

Everything a user needs is importable from here; ``docs/`` explains it, ``docs/concepts.md`` fixes the words.
"""

from jararaca_ws.auth.jwt_checker import JWTChecker
from jararaca_ws.auth.sources import CookieToken, HeaderToken, MessageToken, QueryTicket, SubprotocolToken
from jararaca_ws.auth.user import PresentedToken, User
from jararaca_ws.backends.base import (
    BatchingBackend,
    BroadcastFunc,
    CountingBackend,
    Entry,
    EntryFunc,
    GapFunc,
    GapReportingBackend,
    HistoryBackend,
    KeepingBackend,
    Publication,
    Replay,
    Retention,
    SendFunc,
    StartableBackend,
    StreamPosition,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.backends.limits import LimitingBackend, LimitStore, RateLimitingBackend
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.backends.presence import PresenceBackend, PresenceChange, PresenceEntry, PresenceMember, PresenceStore
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.context import (
    MessagePublisher,
    WebSocketMessageSender,
    provide_bus,
    provide_publisher,
    provide_ws_manager,
    provide_ws_message_sender,
    use_bus,
    use_publisher,
    use_ws_manager,
    use_ws_message_sender,
)
from jararaca_ws.delivery import Delivery, ephemeral, latest, recoverable
from jararaca_ws.errors import (
    AuthenticationFailed,
    AuthenticationTimeout,
    BackendUnavailable,
    BadConnectionId,
    BadMetadata,
    BadName,
    BadRoom,
    BadUserId,
    BrokerUnavailable,
    CallError,
    CallFailed,
    CallTimeout,
    ConfigurationError,
    ConnectionClosed,
    ContextError,
    DuplicateEndpoint,
    DuplicateMessageId,
    DuplicateRoomPattern,
    ErrorCategory,
    HandlerTimeout,
    IllegalTransition,
    InvalidMessage,
    JararacaError,
    LimitReached,
    MessageError,
    MessageIdUnset,
    MessageNotEncodable,
    NotBound,
    NotCarried,
    OriginNotAllowed,
    PermissionDenied,
    PresenceLost,
    RateLimited,
    StageFull,
    TokenExpired,
    Unavailable,
    UnitOfWorkOver,
    UnknownMessage,
    UnresolvableDependency,
    Unroutable,
)
from jararaca_ws.figures import Figures, InstanceStatistics, Statistics
from jararaca_ws.health import Health, ReportsHealth
from jararaca_ws.hosting import connection_by, current_connection
from jararaca_ws.inbound.disconnecting import OnDisconnect
from jararaca_ws.inbound.receiving import Receive
from jararaca_ws.inbound.websocket_router import WebSocketRouter
from jararaca_ws.interceptors.base import (
    AppInterceptor,
    AppInterceptorWithLifecycle,
    AppTransactionContext,
    HttpTransactionData,
    MessageBusTransactionData,
    TransactionData,
    WebSocketTransactionData,
)
from jararaca_ws.interceptors.health import HealthInterceptor, health_router
from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.interceptors.rate_limit import RateLimitInterceptor
from jararaca_ws.interceptors.status import StatusInterceptor, status_router
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.limits.rates import Rate
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messagebus import (
    MemoryMessageBus,
    Message,
    MessageBus,
    MessageBusController,
    MessageBusWorker,
    MessageHandler,
    MessageOf,
    RabbitMQMessageBus,
)
from jararaca_ws.messages import WebSocketMessage, WebSocketMessageBase
from jararaca_ws.microservice import (
    Container,
    Delete,
    Get,
    Microservice,
    Patch,
    Post,
    Put,
    RestController,
    create_http_server,
)
from jararaca_ws.presence import PresenceSettings
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.rpc import WebSocketRequest
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.supervision import Backoff
from jararaca_ws.typed_rooms import Room
from jararaca_ws.wire.protocol import CloseCode
from jararaca_ws.wire.retained import HistoryMessage, RoomHistory

__version__ = "0.1.0"

__all__ = [
    # the microservice
    "Container",
    "Delete",
    "Get",
    "Microservice",
    "Patch",
    "Post",
    "Put",
    "RestController",
    "create_http_server",
    # WebSockets
    "CloseCode",
    "WebSocketSettings",
    "ConnectionState",
    "Delivery",
    "HistoryMessage",
    "OnDisconnect",
    "Receive",
    "Room",
    "RoomHistory",
    "StreamPosition",
    "PresenceEntry",
    "PresenceSettings",
    "WebSocketConnection",
    "WebSocketConnectionManager",
    "WebSocketEndpoint",
    "connection_by",
    "current_connection",
    "WebSocketMessage",
    "WebSocketMessageBase",
    "WebSocketRouter",
    "WebSocketRequest",
    "ephemeral",
    "latest",
    "recoverable",
    # who a client is
    "CookieToken",
    "HeaderToken",
    "JWTChecker",
    "MessageToken",
    "PresentedToken",
    "QueryTicket",
    "SubprotocolToken",
    "User",
    # backends
    "BatchingBackend",
    "CountingBackend",
    "BroadcastFunc",
    "Entry",
    "EntryFunc",
    "GapFunc",
    "GapReportingBackend",
    "HistoryBackend",
    "KeepingBackend",
    "LimitStore",
    "LimitingBackend",
    "MemoryWebSocketConnectionBackend",
    "Publication",
    "RateLimitingBackend",
    "PresenceBackend",
    "PresenceChange",
    "PresenceMember",
    "PresenceStore",
    "RedisWebSocketConnectionBackend",
    "Replay",
    "Retention",
    "SendFunc",
    "StartableBackend",
    "SubscribingBackend",
    "WebSocketConnectionBackend",
    # the message bus
    "Backoff",
    "MemoryMessageBus",
    "Message",
    "MessageBus",
    "MessageBusController",
    "MessageBusWorker",
    "MessageHandler",
    "MessageOf",
    "RabbitMQMessageBus",
    # interceptors
    "AppInterceptor",
    "AppInterceptorWithLifecycle",
    "AppTransactionContext",
    "HttpTransactionData",
    "MessageBusInterceptor",
    "Rate",
    "RateLimitInterceptor",
    "MessageBusTransactionData",
    "TransactionData",
    "WebSocketInterceptor",
    "WebSocketTransactionData",
    # health
    "Health",
    "HealthInterceptor",
    "ReportsHealth",
    "health_router",
    # statistics
    "Figures",
    "InstanceStatistics",
    "Statistics",
    "StatusInterceptor",
    "status_router",
    # context
    "MessagePublisher",
    "WebSocketMessageSender",
    "provide_bus",
    "provide_publisher",
    "provide_ws_manager",
    "provide_ws_message_sender",
    "use_bus",
    "use_publisher",
    "use_ws_manager",
    "use_ws_message_sender",
    # errors
    "AuthenticationFailed",
    "AuthenticationTimeout",
    "BackendUnavailable",
    "BadConnectionId",
    "BadMetadata",
    "BadName",
    "BadRoom",
    "BadUserId",
    "BrokerUnavailable",
    "CallError",
    "CallFailed",
    "CallTimeout",
    "ConfigurationError",
    "ConnectionClosed",
    "ContextError",
    "DuplicateEndpoint",
    "DuplicateMessageId",
    "DuplicateRoomPattern",
    "ErrorCategory",
    "HandlerTimeout",
    "IllegalTransition",
    "InvalidMessage",
    "JararacaError",
    "LimitReached",
    "MessageError",
    "MessageIdUnset",
    "MessageNotEncodable",
    "NotBound",
    "NotCarried",
    "OriginNotAllowed",
    "PermissionDenied",
    "PresenceLost",
    "RateLimited",
    "StageFull",
    "TokenExpired",
    "Unavailable",
    "UnitOfWorkOver",
    "UnknownMessage",
    "UnresolvableDependency",
    "Unroutable",
]
