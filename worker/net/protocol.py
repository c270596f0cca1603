"""aiohttp's HTTP/1.1 parser on a connection stricter than aiohttp's own. Used by `net.transport`.

Changed: a reset is never taken for the end of a body; a parser's error and the loss of the connection wake the reader
of the body; bytes that answer no request end the connection; a reader that was not paused is not "resumed" after each
piece, which would run the parser once more.
"""

import select
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

READ_BUFFER: Final = 64 * 1024
HEADER_BYTES: Final = 64 * 1024
HEADER_LINES: Final = 256


class WireProtocol(ResponseHandler):
    """One connection: `fresh` until its first request, `asked` while an answer is due.

    `made_s`: the monotonic time at which it was made, which is when TCP (or a proxy's tunnel) stood and TLS began.
    """

    made_s = 0.0
    fresh = True
    asked = False

    def ask(self, request: bytes) -> None:
        """Write a whole request and expect one answer."""
        assert self.transport is not None
        self.fresh = False
        self.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADER_LINES,
        )
        self.transport.write(request)

    def set_response_params(self, **limits: Any) -> None:
        """Expect an answer; aiohttp's connector does too, for CONNECT."""
        self.asked = True
        super().set_response_params(**limits)

    async def answer(self) -> tuple[RawResponseMessage, StreamReader]:
        """Return the head and the body of the answer, past any 1xx but 101, which we never ask for."""
        while True:
            message, body = await self.read()
            if not 100 <= message.code < 200 or message.code == 101:
                return message, body

    def is_silent(self) -> bool:
        """Say whether the connection is alive and has said nothing since its last answer, not even to the kernel."""
        if self.should_close or self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def rest(self, body: StreamReader) -> bool:
        """End the exchange; say whether the connection can serve another: all was sent, all was read, no more came."""
        self.asked = False
        unsent = self.transport is None or self.transport.get_write_buffer_size() > 0
        return body.at_eof() and not unsent and not self.should_close and self._is_between_answers()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing was asked: such bytes would become the next request's answer."""
        if data and not self.asked:
            self.force_close()
            self.abort()
            return
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume what was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Tell whoever waits for the head, and whoever waits for the body."""
        super().set_exception(exc, *cause)
        self._fail_body(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail an unfinished body before aiohttp's parser can call a reset its end."""
        if exc is not None:
            self._fail_body(exc)
            self._payload = None
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection; a body still being read fails."""
        self._fail_body(aiohttp.ClientConnectionError("closed on our side"))
        super().close()

    def abort(self) -> None:
        """Close at once, whatever is still unsent; a body still being read fails."""
        self._fail_body(aiohttp.ClientConnectionError("closed on our side"))
        super().abort()

    def _is_between_answers(self) -> bool:
        """Say whether the parser holds no part of another answer. Each request has its own parser: this one ends."""
        assert self._parser is not None
        try:
            return self._parser.feed_eof() is None
        except Exception:  # whatever it makes of half a head: the connection is not clean
            return False

    def _fail_body(self, exc: BaseException) -> None:
        body = self._payload
        if body is not None and not body.is_eof():
            body.set_exception(exc)
