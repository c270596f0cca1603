"""One rule for every connection to Redis, ours and kombu's: any exception but a reply of the server ends it.

redis-py closes a connection for the errors that it knows. Others (a MemoryError while a reply is read, a decoder's
UnicodeDecodeError between two replies of a pipeline, an exception in the handshake) leave the rest of a reply in the
socket, or a parser without a buffer, and the pool gives that connection to the next command: it fails for ever, or it
takes another command's answer for its own.

A connection's name is no condition: a user of Redis without the right to CLIENT SETNAME is served without it.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import redis
from redis._parsers.resp2 import _RESP2Parser
from redis._parsers.socket import SocketBuffer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

# Nothing else that we ask for is larger than an entry that is read. What is, somebody else put there: a blocking move
# answers with the entry itself.
LONGEST_REPLY: Final = 64 * 1024 * 1024

T = TypeVar("T")


class ReplyTooLong(RedisConnectionError):
    """A reply is larger than what is read; it was left, and its connection is closed."""


class _Buffer(SocketBuffer):
    """Refuses a long reply before it is in memory, where reading it would take three times its size."""

    longest = LONGEST_REPLY

    def read(self, length: int, *args: Any, **kwargs: Any) -> bytes:
        if length > self.longest:
            raise ReplyTooLong(f"the reply has {length} bytes, more than the {self.longest} that are read")
        return super().read(length, *args, **kwargs)


class _Parser(_RESP2Parser):
    """redis-py's parser in Python, with the bound."""

    def __init__(self, socket_read_size: int, *, longest: int) -> None:
        super().__init__(socket_read_size)  # type: ignore[no-untyped-call]
        self._longest = longest

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._buffer = _Buffer(connection._sock, self.socket_read_size, connection.socket_timeout)
        self._buffer.longest = self._longest


class _Strict:
    """What each kind of connection gets. Mixed in before a class of redis-py's."""

    client_name: str | None

    def on_connect_check_health(self, check_health: bool = True) -> None:
        name, self.client_name = self.client_name, None
        try:
            super().on_connect_check_health(check_health=check_health)  # type: ignore[misc]
        finally:
            self.client_name = name
        if name:
            self.send_packed_command(
                self.pack_command("CLIENT", "SETNAME", name),  # type: ignore[attr-defined]
                check_health=False,
            )
            with suppress(ResponseError):
                self.read_response()

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self._or_closed(super().connect_check_health, *args, **kwargs)  # type: ignore[misc]

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        self._or_closed(super().send_packed_command, *args, **kwargs)  # type: ignore[misc]

    def can_read(self, *args: Any, **kwargs: Any) -> bool:
        return self._or_closed(super().can_read, *args, **kwargs)  # type: ignore[misc,no-any-return]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except (ResponseError, redis.TimeoutError):
            # A timeout closes it too, unless the caller said that it asks again: then nothing was lost.
            raise
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise

    def _or_closed(self, step: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return step(*args, **kwargs)
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise


class Watcher(Protocol):
    """What says where the primary is, see worker.sentinel."""

    def primary(self) -> tuple[str, int]: ...
    def close(self) -> None: ...


class _ToPrimary:
    """A connection that opens to the primary of the moment. Mixed in between `_Strict` and a class of redis-py's."""

    watch: Watcher

    def _connect(self) -> Any:
        self.host, self.port = self.watch.primary()
        return super()._connect()  # type: ignore[misc]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            # The primary that was. A script says it in the middle of its text.
            if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
                self.disconnect()  # type: ignore[attr-defined]
            raise


class RedisPool(redis.ConnectionPool):
    """A pool of such connections. One that comes back while an exception is on its way is closed.

    Between a command and its reply, or among the replies of a pipeline, no connection sees the exception. An exception
    that a caller is handling meanwhile costs a new connection and nothing else. `longest`: bytes of a reply. `watch`:
    says at each connect where to; without it that is `host` and `port`.
    """

    def __init__(
        self,
        connection_class: type[Any] = redis.Connection,
        *,
        longest: int = LONGEST_REPLY,
        watch: Watcher | None = None,
        **kwargs: Any,
    ) -> None:
        # RESP2 has no messages out of turn, which nobody expects on a connection whose socket we watch ourselves.
        kwargs |= {"protocol": 2, "parser_class": partial(_Parser, longest=longest)}
        bases = (_Strict, connection_class) if watch is None else (_Strict, _ToPrimary, connection_class)
        made = type(connection_class.__name__, bases, {} if watch is None else {"watch": watch})
        super().__init__(connection_class=made, **kwargs)
        self.watch = watch

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, those to the sentinels too."""
        super().disconnect(inuse_connections)
        if self.watch is not None:
            self.watch.close()

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if not isinstance(sys.exception(), ResponseError | None):
            connection.disconnect()
        super().release(connection)
