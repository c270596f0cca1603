"""Close every Redis connection, ours and kombu's, after any exception other than an error reply of the server.

redis-py closes a connection only after the errors that it expects. Other exceptions (a MemoryError while it reads a
reply, a UnicodeDecodeError between two replies of a pipeline, an exception in the handshake) leave the rest of a reply
in the socket, or a parser without a buffer. The pool then gives that connection to the next command. The command fails,
again and again, or reads the reply of another command.

A user of Redis without the right to CLIENT SETNAME also gets a connection, without a name.
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

# Longer than any reply that we expect. A foreign entry may be longer, and a blocking move replies with the entry.
LONGEST_REPLY: Final = 64 * 1024 * 1024

T = TypeVar("T")


class ReplyTooLong(RedisConnectionError):
    """A reply is longer than the limit. It was not read, and its connection is closed."""


class _Buffer(SocketBuffer):
    """Refuses a long reply before reading it, because reading takes three times its size in memory."""

    longest = LONGEST_REPLY

    def read(self, length: int, *args: Any, **kwargs: Any) -> bytes:
        if length > self.longest:
            raise ReplyTooLong(f"the reply has {length} bytes; allowed are {self.longest}")
        return super().read(length, *args, **kwargs)


class _Parser(_RESP2Parser):
    """redis-py's parser in Python, with the limit of `_Buffer`."""

    def __init__(self, socket_read_size: int, *, longest: int) -> None:
        super().__init__(socket_read_size)  # type: ignore[no-untyped-call]
        self._longest = longest

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._buffer = _Buffer(connection._sock, self.socket_read_size, connection.socket_timeout)
        self._buffer.longest = self._longest


class _ClosesOnError:
    """Mixed in before a connection class of redis-py."""

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
        self._call_or_close(super().connect_check_health, *args, **kwargs)  # type: ignore[misc]

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        self._call_or_close(super().send_packed_command, *args, **kwargs)  # type: ignore[misc]

    def can_read(self, *args: Any, **kwargs: Any) -> bool:
        return self._call_or_close(super().can_read, *args, **kwargs)  # type: ignore[misc,no-any-return]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except (ResponseError, redis.TimeoutError):
            # redis-py closes after a timeout itself, unless the caller will read again; then nothing is lost.
            raise
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise

    def _call_or_close(self, step: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return step(*args, **kwargs)
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise


class Watcher(Protocol):
    """Finds the primary: `PrimaryWatch` of worker.queue.sentinel, and that module imports this one."""

    def primary(self) -> tuple[str, int]: ...
    def close(self) -> None: ...


class _ToPrimary:
    """A connection that opens to the present primary. Mixed in between `_ClosesOnError` and a class of redis-py."""

    watch: Watcher

    def _connect(self) -> Any:
        self.host, self.port = self.watch.primary()
        return super()._connect()  # type: ignore[misc]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            # The former primary. An error inside a script has READONLY in the middle of its text.
            if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
                self.disconnect()  # type: ignore[attr-defined]
            raise


class RedisPool(redis.ConnectionPool):
    """A pool of such connections. It closes a connection that is released during an exception.

    The connection itself does not see an exception between a command and its reply, or among the replies of a pipeline.
    If the caller is only handling another exception, that costs a new connection. `longest`: the most bytes of a reply.
    `watch` finds the server at each connect; without it, `host` and `port` are used.
    """

    def __init__(
        self,
        connection_class: type[Any] = redis.Connection,
        *,
        longest: int = LONGEST_REPLY,
        watch: Watcher | None = None,
        **kwargs: Any,
    ) -> None:
        # RESP2, because RESP3 may push messages between replies, and the reader polls the socket itself.
        kwargs |= {"protocol": 2, "parser_class": partial(_Parser, longest=longest)}
        mixins = (_ClosesOnError,) if watch is None else (_ClosesOnError, _ToPrimary)
        strict = type(connection_class.__name__, (*mixins, connection_class), {} if watch is None else {"watch": watch})
        super().__init__(connection_class=strict, **kwargs)
        self.watch = watch

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, including those to the sentinels."""
        super().disconnect(inuse_connections)
        if self.watch is not None:
            self.watch.close()

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if not isinstance(sys.exception(), ResponseError | None):
            connection.disconnect()
        super().release(connection)
