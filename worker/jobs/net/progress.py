"""What is known of one call while it runs, and the Reply made of it. `run` reads it too, after cancelling a call."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import httpx

from worker.chat.answer import Answer, has_output, read_body
from worker.chat.error_response import from_answer, from_response
from worker.chat.raw_body import RawLog
from worker.chat.stream import Assembler
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, Failure, failure, interrupted, under_policy
from worker.jobs.net.body_reader import BodyReader, WholeBody, choose, start_of
from worker.jobs.net.content_encoding import Decoder, decoder
from worker.net.redaction import redact, secrets_of

Result = TypeVar("Result")

MAX_ERROR_BYTES: Final = 256 * 1024
# Larger JSON is parsed in a thread: the loop does the network and nothing else.
LARGE_BYTES: Final = 256 * 1024
_REQUEST_IDS: Final = ("x-request-id", "x-oneapi-request-id", "request-id", "x-generation-id", "apim-request-id")
_KEPT: Final = frozenset(
    (*_REQUEST_IDS, "content-type", "date", "openai-processing-ms", "retry-after", "retry-after-ms", "x-should-retry")
)
_MAX_KEPT: Final = 64
_MAX_HEADER_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended. `failure` None: `answer` is complete. A failure may have a partial answer beside it.

    `sent`: connect returned, so the endpoint may have seen the request. The three times are seconds since the call
    began. `raw` is the body without its Content-Encoding, in `raw_encoding` ("identity" or "gzip"), `body_bytes` its
    size without that. `headers` are the ones we keep, with lower-case names.
    """

    failure: Failure | None
    answer: Answer | None
    sent: bool
    http_status: int | None
    request_id: str | None
    first_byte_s: float | None
    first_token_s: float | None
    elapsed_s: float
    raw: bytes
    raw_encoding: str
    headers: Mapping[str, str]
    body_bytes: int = 0


class Progress:
    """Collects one call. Give it to `call`; after cancelling the task, `cut` says what had come by then."""

    def __init__(self) -> None:
        self.sent = False
        self.http_status: int | None = None
        self._endpoint: Endpoint | None = None
        self._n: int | None = None
        self._secrets: tuple[bytes, ...] = ()
        self._started = 0.0
        self._first_byte_s: float | None = None
        self._first_token_s: float | None = None
        self._headers: dict[str, str] = {}
        self._decoder: Decoder | None = None
        self._reading: BodyReader | None = None
        self._before = b""
        self._left = 0
        self._taken = 0
        self._unparsed = 0
        self._answer: Answer | None = None
        self._log = RawLog()

    def begin(self, endpoint: Endpoint, *, n: int | None) -> None:
        """Start the clock of a call to `endpoint` that asks for `n` choices."""
        self._endpoint, self._n = endpoint, n
        self._secrets = secrets_of(endpoint)
        self._started = time.monotonic()

    def note_head(self, response: httpx.Response) -> None:
        """Take the status and the headers. Raises content.Damaged for an encoding that is unknown."""
        assert self._endpoint is not None
        self.http_status = response.status_code
        self._first_byte_s = self._elapsed_s()
        self._headers = self._kept(response.headers)
        self._left = self._endpoint.max_response_bytes if response.is_success else MAX_ERROR_BYTES
        if not response.is_success:
            self._reading = WholeBody()
        self._decoder = decoder(response.headers.get("content-encoding", ""))

    def decoded(self, piece: bytes) -> Iterator[bytes]:
        """Yield the bytes of the body in a piece from the wire. Raises content.Damaged."""
        assert self._decoder is not None
        return self._decoder.feed(piece)

    def take(self, piece: bytes) -> int:
        """Take a piece of the body, up to the byte budget; return how much data it held."""
        piece = redact(piece, self._secrets)
        self._left -= len(piece)
        if self._left < 0:
            piece = piece[: self._left]
        self._taken += len(piece)
        self._log.add(piece)
        reading = self._reading
        if reading is None:
            # Blank lines are dropped here, not kept until something follows: a flood of them would be.
            piece = self._before = start_of(self._before + piece)
            reading = self._reading = self._choose(piece)
            if reading is None:
                return 0 if self._is_labelled_stream() else 1
        data = reading.feed(piece)
        self._unparsed = 0 if data and not isinstance(reading, WholeBody) else self._unparsed + len(piece)
        if data and self._first_token_s is None and isinstance(reading, Assembler):
            self._first_token_s = self._elapsed_s()
        return data

    @property
    def is_heavy(self) -> bool:
        """The next piece may complete an event so large that `take_in_thread` is for it."""
        return self._unparsed >= LARGE_BYTES and not isinstance(self._reading, WholeBody)

    async def take_in_thread(self, piece: bytes) -> int:
        """Do as `take` does, off the loop."""
        return await _in_thread(self.take, piece)

    async def finish(self, *, reset: bool) -> None:
        """Read what came, in a thread if that is much, so that `reply` and `cut` have only to say it.

        `reset`: the body did not end by itself. A cancellation is raised when the thread has ended.
        """
        if self._answer is None and self._reading is not None and self._taken >= LARGE_BYTES:
            await _in_thread(self._finish, reset)

    def _finish(self, reset: bool) -> None:
        assert self._reading is not None
        self._answer = self._reading.finish(reset=reset)

    @property
    def is_full(self) -> bool:
        """More came than the budget allows."""
        return self._left < 0

    @property
    def is_settled(self) -> bool:
        """Nothing that still comes can change what the answer is, except its usage."""
        return self._reading is not None and (self._reading.done or self._reading.failed)

    def cut(self, code: Literal[ErrorCode.cancelled, ErrorCode.expired, ErrorCode.worker_lost]) -> Reply:
        """Say what had come when we ended the call ourselves; an answer complete by then is no failure."""
        return self.reply(code)

    def reply(self, broken: ErrorCode | None) -> Reply:
        """Close the call. `broken`: what ended it before its body did."""
        answer, found = self._judge(broken)
        if found is not None and self._endpoint is not None:
            found = under_policy(
                found,
                retry_partial=self._endpoint.retry_partial,
                retry_ambiguous=self._endpoint.retry_ambiguous,
            )
        raw, raw_encoding = self._log.close()
        return Reply(
            failure=found,
            answer=answer,
            sent=self.sent,
            http_status=self.http_status,
            request_id=next((self._headers[name] for name in _REQUEST_IDS if name in self._headers), None),
            first_byte_s=self._first_byte_s,
            first_token_s=self._first_token_s,
            elapsed_s=self._elapsed_s() if self._endpoint is not None else 0.0,
            raw=raw,
            raw_encoding=raw_encoding,
            headers=self._headers,
            body_bytes=self._taken,
        )

    def _judge(self, broken: ErrorCode | None) -> tuple[Answer | None, Failure | None]:
        status = self.http_status
        if status is None:
            assert broken is not None
            return None, self._failure(broken, produced=False)
        if not 200 <= status < 300:
            # The status says it, even if the body broke off.
            body = self._reading.body() if isinstance(self._reading, WholeBody) else b""
            return None, from_response(status, self._headers, body, now=datetime.now(UTC))
        answer = self._answer
        if answer is None:
            answer = read_body(b"") if self._reading is None else self._reading.finish(reset=broken is not None)
        return answer, None if answer.fault is None else self._fault(answer, broken)

    def _fault(self, answer: Answer, broken: ErrorCode | None) -> Failure:
        assert answer.fault is not None
        produced = has_output(answer.completion) or answer.usage is not None
        # A cut stream has names of its own, and an error that came in it says more than how it then ended.
        streamed = isinstance(self._reading, Assembler) or (self._reading is None and self._is_labelled_stream())
        if broken is None or (streamed and (self.is_settled or broken is ErrorCode.body_truncated)):
            return from_answer(answer.fault, answer.provider, produced=produced)
        return self._failure(broken, produced=produced)

    def _failure(self, code: ErrorCode, *, produced: bool) -> Failure:
        if code in (ErrorCode.cancelled, ErrorCode.expired, ErrorCode.worker_lost):
            return interrupted(code, sent=self.sent, produced=produced)
        return failure(code, sent=self.sent, produced=produced)

    def _choose(self, start: bytes) -> BodyReader | None:
        # The budget has been applied; the assembler must not find it exceeded.
        max_bytes = max(0, self._left) + len(start)
        return choose(start, is_labelled=self._is_labelled_stream(), n=self._n, max_bytes=max_bytes)

    def _is_labelled_stream(self) -> bool:
        return "event-stream" in self._headers.get("content-type", "").lower()

    def _kept(self, headers: httpx.Headers) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in headers.multi_items():
            if len(kept) < _MAX_KEPT and (name in _KEPT or name.startswith("x-ratelimit-")):
                clean = redact(value.encode("utf-8", "replace"), self._secrets).decode("utf-8", "replace")
                kept[name] = "".join(char for char in clean if char.isprintable())[:_MAX_HEADER_CHARS]
        return kept

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


async def _in_thread(work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """Return what `work` returns; raise a cancellation only when it has ended, since it changes what others read."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return running.result()
