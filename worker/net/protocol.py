"""aiohttp's protocol of a connection with our own parser. Used by `net.transport`.

Differences to aiohttp:
- A head has a limit and is read leniently (`net.http1`).
- A complete answer stays valid if junk follows.
- A reset is never the end of a body.
- The loss of the connection wakes the reader of the body, and the bytes before the loss are read first.
- Bytes without a request end the connection.
"""

import asyncio
import os
import select
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from worker.net.http1 import Chunks, Head, HeadReader, MalformedResponse

READ_BUFFER: Final = 64 * 1024
_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())


class AnswerParser:
    """Parses one answer. Its methods have the names of aiohttp's parsers, because `ResponseHandler` calls them.

    `tunnel`: this is a proxy's answer to CONNECT; after a 2xx the connection is a tunnel (RFC 9110, section 9.3.6).
    """

    def __init__(self, protocol: "WireProtocol", loop: asyncio.AbstractEventLoop, *, tunnel: bool) -> None:
        self._protocol = protocol
        self._loop = loop
        self._tunnel = tunnel
        self._heads = HeadReader()
        self._head: Head | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        self._chunks: Chunks | None = None
        self._left: int | None = 0
        self._extra = False

    @property
    def is_clean(self) -> bool:
        """The whole answer arrived, nothing after it, and the connection may serve another request."""
        if self._head is None or not self._head.persistent or self._extra or not self._body.is_eof():
            return False
        return self._chunks is None or self._chunks.is_clean

    def feed_data(self, data: bytes) -> tuple[list[tuple[RawResponseMessage, StreamReader]], bool, bytes]:
        """Add bytes of the wire; return the head once, as aiohttp's message. Raises BadHttpMessage for a bad head."""
        messages = []
        if self._head is None and data:
            try:
                result = self._heads.feed(data)
            except MalformedResponse as error:
                raise BadHttpMessage("the head of the answer is malformed or too long") from error
            if result is None:
                return [], False, b""
            head, data = result
            messages.append((self._begin(head), self._body))
        if data:
            self._feed_body(data)
        return messages, False, b""

    def feed_eof(self) -> None:
        """Handle the end of the connection. Raises ClientPayloadError if the body is incomplete."""
        if self._head is None or self._body.is_eof():
            return
        if self._left is not None or (self._chunks is not None and not self._chunks.plain):
            raise aiohttp.ClientPayloadError("the body ended early")
        self._body.feed_eof()

    def pause_reading(self) -> None:
        """Do nothing: all bytes are in the body's buffer already."""

    def _begin(self, head: Head) -> RawResponseMessage:
        self._head = head
        tunnel = self._tunnel and 200 <= head.code < 300
        self._left = None if head.chunked or tunnel else head.length
        if head.chunked and not tunnel:
            self._chunks = Chunks()
        if self._left != 0:
            self._body = StreamReader(self._protocol, READ_BUFFER, loop=self._loop)
        return RawResponseMessage(
            HttpVersion11, head.code, "", _NO_HEADERS, head.headers, not head.persistent, None, False, head.chunked
        )

    def _feed_body(self, data: bytes) -> None:
        if self._body.is_eof():
            if self._chunks is not None:
                self._chunks.feed(data)  # trailers
            else:
                self._extra = True
            return
        if self._chunks is not None and self._chunks.failed:
            return
        if self._chunks is not None and not self._chunks.plain:
            data = self._feed_chunks(self._chunks, data)
        if self._left is not None:
            self._extra = len(data) > self._left
            data = data[: self._left]
            self._left -= len(data)
        if data:
            self._body.feed_data(data)
        if self._left == 0 or (self._chunks is not None and self._chunks.ended):
            self._body.feed_eof()

    def _feed_chunks(self, chunks: Chunks, data: bytes) -> bytes:
        data = chunks.feed(data)
        if chunks.plain:
            assert self._head is not None
            self._left = self._head.length
        elif chunks.failed:
            # Not raised, because this packet may also hold the head, and its status counts.
            self._body.set_exception(aiohttp.ClientPayloadError("the chunks are malformed"))
        return data


class WireProtocol(ResponseHandler):
    """A connection: `fresh` until its first request, `asked` while an answer is due.

    `made_s`: the monotonic time of its creation, after TCP (or a proxy's tunnel) and before TLS.
    """

    made_s = 0.0
    fresh = True
    asked = False
    _answer: AnswerParser | None = None

    def ask(self, request: bytes) -> None:
        """Write a whole request and expect an answer."""
        assert self.transport is not None
        self.fresh = False
        self._expect(tunnel=False)
        self.transport.write(request)

    def set_response_params(self, **_: Any) -> None:
        """Expect a proxy's answer to CONNECT. aiohttp's connector calls this only for CONNECT."""
        self._expect(tunnel=True)

    async def answer(self) -> tuple[RawResponseMessage, StreamReader]:
        """Return the head and the body of the answer."""
        return await self.read()

    def is_silent(self) -> bool:
        """Return whether the connection is alive and no byte arrived since its last answer, also not in the kernel."""
        if self.should_close or self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def end_exchange(self, body: StreamReader) -> bool:
        """End the exchange; return whether the connection is reusable: all was sent, all was read, nothing is left."""
        self.asked = False
        unsent = self.transport is None or self.transport.get_write_buffer_size() > 0
        assert self._answer is not None
        return body.at_eof() and not unsent and not self.should_close and self._answer.is_clean

    def data_received(self, data: bytes) -> None:
        """Parse bytes; without a request, close instead, because they would become the next request's answer."""
        if data and not self.asked:
            self.force_close()
            self.abort()
            return
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading if it was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Raise the exception for the readers of the head and of the body."""
        super().set_exception(exc, *cause)
        self._fail_body(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail an unfinished body before aiohttp's parser can take a reset as its end."""
        if exc is not None:
            if self.asked:
                self._take_unread()
            self._fail_body(exc)
            self._payload = None
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection; an unfinished body fails."""
        self._fail_body(aiohttp.ClientConnectionError("closed on our side"))
        super().close()

    def abort(self) -> None:
        """Close at once, also with unsent bytes; an unfinished body fails."""
        self._fail_body(aiohttp.ClientConnectionError("closed on our side"))
        super().abort()

    def _expect(self, *, tunnel: bool) -> None:
        self.asked = True
        self._answer = AnswerParser(self, self._loop, tunnel=tunnel)
        # AnswerParser has all methods that ResponseHandler calls.
        self._parser = self._answer  # type: ignore[assignment]

    def _take_unread(self) -> None:
        """Read the bytes left in the kernel, because asyncio closes after a failed write without reading."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None:  # TLS has closed it
            return
        try:
            while data := os.read(sock.fileno(), READ_BUFFER):
                self.data_received(data)
        except OSError:
            pass  # nothing is left

    def _fail_body(self, exc: BaseException) -> None:
        body = self._payload
        if body is not None and not body.is_eof():
            body.set_exception(exc)
