"""Every error that this package raises on purpose.

::

    JararacaError
    ├── ConfigurationError            refused at start-up; nothing runs
    │   ├── DuplicateMessageId        two message classes, one MESSAGE_ID
    │   ├── DuplicateEndpoint         two WebSocket endpoints, one path
    │   ├── DuplicateRoomPattern      two classes of rooms, one name; or at a join
    │   └── UnresolvableDependency    a constructor parameter that nothing provides
    ├── Unavailable                   who we depend on did not take what was given
    │   ├── BackendUnavailable        the WebSocket backend (Redis)
    │   │   └── PresenceLost          it has forgotten who is in the rooms of this instance
    │   ├── BrokerUnavailable         the message bus (RabbitMQ)
    │   └── Unroutable                the broker has no queue for a published message
    ├── ContextError                  the call needs something that is not bound here
    │   ├── NotBound                  no interceptor has bound the manager or the publisher
    │   ├── UnitOfWorkOver            sent or published after the unit of work had ended
    │   └── StageFull                 one unit of work sent or published too much
    ├── MessageError
    │   ├── MessageIdUnset            the class has no MESSAGE_ID, so it cannot be sent
    │   ├── MessageNotEncodable       NaN, infinity, or a value that JSON has no word for
    │   ├── NotCarried                the typed room does not carry this message
    │   └── InvalidMessage            what a peer sent is not a message that we know
    │       └── UnknownMessage        of a type that nobody has, or handles here
    ├── BadMetadata                   what cannot be the metadata of a connection
    ├── BadName                       a name that cannot be used
    │   ├── BadConnectionId           not the id of a connection
    │   ├── BadRoom                   not a room name
    │   └── BadUserId                 not a user id
    ├── AuthenticationFailed          no token, or none that counts
    │   ├── AuthenticationTimeout     it has not come in time
    │   └── TokenExpired              it was good once
    ├── OriginNotAllowed              the page that opens the WebSocket is not one of ours
    ├── PermissionDenied              this client may not
    ├── RateLimited                   too much in too short a time
    ├── LimitReached                  there are as many as there may be
    ├── CallError                     a client was asked, and there is no reply
    │   ├── CallFailed                it answered with an error, or with what is no reply
    │   └── CallTimeout               it did not answer in time
    ├── HandlerTimeout                a handler took too long for a message of a client
    ├── ConnectionClosed              the socket is gone
    └── IllegalTransition             a step that the state does not allow

Errors carry fields and build their sentence in ``__str__``; that is for the log. What a client is told, how its socket
closes and what HTTP answers stand on the class: see `JararacaError`.
"""

from __future__ import annotations

from jararaca_ws.errors.application import (
    BackendUnavailable,
    BrokerUnavailable,
    ConnectionClosed,
    ContextError,
    HandlerTimeout,
    IllegalTransition,
    MessageError,
    MessageIdUnset,
    MessageNotEncodable,
    NotBound,
    NotCarried,
    PresenceLost,
    StageFull,
    Unavailable,
    UnitOfWorkOver,
    Unroutable,
)
from jararaca_ws.errors.clients import (
    AuthenticationFailed,
    AuthenticationTimeout,
    BadConnectionId,
    BadMetadata,
    BadName,
    BadRoom,
    BadUserId,
    CallError,
    CallFailed,
    CallTimeout,
    InvalidMessage,
    LimitReached,
    OriginNotAllowed,
    PermissionDenied,
    RateLimited,
    TokenExpired,
    UnknownMessage,
)
from jararaca_ws.errors.root import (
    ConfigurationError,
    DuplicateEndpoint,
    DuplicateMessageId,
    DuplicateRoomPattern,
    ErrorCategory,
    JararacaError,
    UnresolvableDependency,
    named,
    one_line,
    quoted,
)

__all__ = [
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
    "Unroutable",
    "UnresolvableDependency",
    "named",
    "one_line",
    "quoted",
]
