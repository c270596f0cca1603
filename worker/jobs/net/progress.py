"""State of one call in flight; builds its Reply when the call ends. `run` uses it too, after it cancels a call."""

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
# Larger JSON is parsed in a thread, to keep the event loop free for the network.
LARGE_BYTES: Final = 256 * 1024
_REQUEST_IDS: Final = ("x-request-id", "x-oneapi-request-id", "request-id", "x-generation-id", "apim-request-id")
_KEPT: Final = frozenset(
    (*_REQUEST_IDS, "content-type", "date", "openai-processing-ms", "retry-after", "retry-after-ms", "x-should-retry")
)
_MAX_KEPT: Final = 64
_MAX_HEADER_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a call. `failure` None: `answer` is complete; a failure may come with a partial answer.

    `sent`: the connection was made, so the endpoint may have seen the request. The three times are seconds since the
    call began. `raw`: the body after its Content-Encoding is undone, stored as `raw_encoding` ("identity" or "gzip");
    `body_bytes`: its size before that gzip. `headers`: the subset that we keep, with lower-case names.
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
    """Collects one call. Pass it to `call`; if you cancel the task, `cut` returns the Reply so far."""

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
        self._reader: BodyReader | None = None
        self._start = b""
        self._budget_left = 0
        self._body_bytes = 0
        self._unparsed_bytes = 0
        self._answer: Answer | None = None
        self._log = RawLog()

    def begin(self, endpoint: Endpoint, *, n: int | None) -> None:
        """Start the clock of a call to `endpoint` that asks for `n` choices."""
        self._endpoint, self._n = endpoint, n
        self._secrets = secrets_of(endpoint)
        self._started = time.monotonic()

    def note_head(self, response: httpx.Response) -> None:
        """Read the status and the headers."""
        assert self._endpoint is not None
        self.http_status = response.status_code
        self._first_byte_s = self._elapsed_s()
        self._headers = self._select_headers(response.headers)
        self._budget_left = self._endpoint.max_response_bytes if response.is_success else MAX_ERROR_BYTES
        if not response.is_success:
            self._reader = WholeBody()
        self._decoder = decoder(response.headers.get("content-encoding", ""))

    def decoded(self, piece: bytes) -> Iterator[bytes]:
        """Undo the Content-Encoding of a piece from the wire; yield bytes of the body. Raises DecodingError."""
        assert self._decoder is not None
        return self._decoder.feed(piece)

    def take(self, piece: bytes) -> int:
        """Take a piece of the body, up to the byte budget; return the amount of data in it (0 for keep-alives)."""
        piece = redact(piece, self._secrets)
        self._budget_left -= len(piece)
        if self._budget_left < 0:
            piece = piece[: self._budget_left]
        self._body_bytes += len(piece)
        self._log.add(piece)
        reader = self._reader
        if reader is None:
            # Blank lines are dropped at once: a flood of them would fill the memory.
            piece = self._start = start_of(self._start + piece)
            reader = self._reader = self._choose_reader(piece)
            if reader is None:
                return 0 if self._is_labelled_stream() else 1
        data = reader.feed(piece)
        self._unparsed_bytes = 0 if data and not isinstance(reader, WholeBody) else self._unparsed_bytes + len(piece)
        if data and self._first_token_s is None and isinstance(reader, Assembler):
            self._first_token_s = self._elapsed_s()
        return data

    @property
    def is_heavy(self) -> bool:
        """The next piece may complete a very large event; take it with `take_in_thread`."""
        return self._unparsed_bytes >= LARGE_BYTES and not isinstance(self._reader, WholeBody)

    async def take_in_thread(self, piece: bytes) -> int:
        """Call `take` in a thread."""
        return await _in_thread(self.take, piece)

    async def finish(self, *, reset: bool) -> None:
        """Parse a large body in a thread, so `reply` and `cut` have little to do.

        `reset`: the body did not end by itself. A cancellation is raised when the thread has ended.
        """
        if self._answer is None and self._reader is not None and self._body_bytes >= LARGE_BYTES:
            await _in_thread(self._finish_body, reset)

    def _finish_body(self, reset: bool) -> None:
        assert self._reader is not None
        self._answer = self._reader.finish(reset=reset)

    @property
    def is_full(self) -> bool:
        """The body has more bytes than the budget allows."""
        return self._budget_left < 0

    @property
    def is_settled(self) -> bool:
        """The rest of the body can change only the answer's usage."""
        return self._reader is not None and (self._reader.done or self._reader.failed)

    def cut(self, code: Literal[ErrorCode.cancelled, ErrorCode.expired, ErrorCode.worker_lost]) -> Reply:
        """Return the Reply of a call that we ended ourselves; if its answer is already complete, it has no failure."""
        return self.reply(code)

    def reply(self, broken: ErrorCode | None) -> Reply:
        """Close the call. `broken`: the error that ended it before the end of the body, if any."""
        answer, problem = self._answer_and_failure(broken)
        if problem is not None and self._endpoint is not None:
            problem = under_policy(
                problem,
                retry_partial=self._endpoint.retry_partial,
                retry_ambiguous=self._endpoint.retry_ambiguous,
            )
        raw, raw_encoding = self._log.close()
        return Reply(
            failure=problem,
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
            body_bytes=self._body_bytes,
        )

    def _answer_and_failure(self, broken: ErrorCode | None) -> tuple[Answer | None, Failure | None]:
        status = self.http_status
        if status is None:
            assert broken is not None
            return None, self._failure(broken, produced=False)
        if not 200 <= status < 300:
            # The status decides, even if the body broke off.
            body = self._reader.body() if isinstance(self._reader, WholeBody) else b""
            return None, from_response(status, self._headers, body, now=datetime.now(UTC))
        answer = self._answer
        if answer is None:
            answer = read_body(b"") if self._reader is None else self._reader.finish(reset=broken is not None)
        return answer, None if answer.fault is None else self._failure_of(answer, broken)

    def _failure_of(self, answer: Answer, broken: ErrorCode | None) -> Failure:
        assert answer.fault is not None
        produced = has_output(answer.completion) or answer.usage is not None
        # A cut stream has its own error codes, and an error event in it explains more than the way it ended.
        streamed = isinstance(self._reader, Assembler) or (self._reader is None and self._is_labelled_stream())
        if broken is None or (streamed and (self.is_settled or broken is ErrorCode.body_truncated)):
            return from_answer(answer.fault, answer.provider, produced=produced)
        return self._failure(broken, produced=produced)

    def _failure(self, code: ErrorCode, *, produced: bool) -> Failure:
        if code in (ErrorCode.cancelled, ErrorCode.expired, ErrorCode.worker_lost):
            return interrupted(code, sent=self.sent, produced=produced)
        return failure(code, sent=self.sent, produced=produced)

    def _choose_reader(self, start: bytes) -> BodyReader | None:
        # `take` enforces the budget, so the assembler gets a limit that it cannot exceed.
        max_bytes = max(0, self._budget_left) + len(start)
        return choose(start, is_labelled=self._is_labelled_stream(), n=self._n, max_bytes=max_bytes)

    def _is_labelled_stream(self) -> bool:
        return "event-stream" in self._headers.get("content-type", "").lower()

    def _select_headers(self, headers: httpx.Headers) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in headers.multi_items():
            if len(kept) < _MAX_KEPT and (name in _KEPT or name.startswith("x-ratelimit-")):
                clean = redact(value.encode("utf-8", "replace"), self._secrets).decode("utf-8", "replace")
                kept[name] = "".join(char for char in clean if char.isprintable())[:_MAX_HEADER_CHARS]
        return kept

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


async def _in_thread(work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """Run `work` in a thread. A cancellation is raised only after the thread ends, because `work` changes our state."""
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
