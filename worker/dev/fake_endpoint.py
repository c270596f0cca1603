"""Run the fake endpoint: in a thread of this process for demo, dev and tests, or in the foreground."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Self, TypeVar

from worker.dev.fake.limiter import ProviderLimiter
from worker.dev.fake.limits import ProviderLimit, load_limits, parse_limits
from worker.dev.fake.routes import listen, stop
from worker.dev.fake.server import FakeServer

READY_S = 10.0
LOOPBACK = "127.0.0.1"
T = TypeVar("T")
Limits = Sequence[ProviderLimit | Mapping[str, Any]]


class FakeEndpoint:
    """A fake endpoint on a loopback port of this process.

    In `with FakeEndpoint() as fake:`, `fake.url` is a value for AFTERWORD_ENDPOINT_URL; `fake.stats()` has counters.
    `limits` are objects such as {"tokens_per_minute": 60_000} (ops/fake_endpoint.md). Raises BadLimits.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        key: str | None = None,
        idempotency: Literal["ignored", "honoured"] = "ignored",
        tls: ssl.SSLContext | None = None,
        limits: Limits = (),
    ) -> None:
        self.endpoint = FakeServer(key=key, idempotency=idempotency, limiter=ProviderLimiter(parse_limits(limits)))
        self.port = port
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}"

    def start(self) -> Self:
        """Serve in a new thread; return when the port is open. Raises OSError if the port is taken."""
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fake-endpoint", daemon=True)
        self._thread.start()
        self.port = ready.result(timeout=READY_S)
        return self

    def _run(self, ready: "Future[int]") -> None:
        try:
            asyncio.run(self._serve(ready))
        except OSError as error:
            ready.set_exception(error)

    async def _serve(self, ready: "Future[int]") -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        runner = await listen(self.endpoint, host=LOOPBACK, port=self.port, tls=self._tls)
        ready.set_result(runner.addresses[0][1])
        try:
            await self._stopping.wait()
        finally:
            await stop(runner)

    def stop(self) -> None:
        """Close the port and all connections, and wait for the end of the thread."""
        if self._loop is None or self._stopping is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=READY_S)
        self._loop = None

    @property
    def is_stopped(self) -> bool:
        """True if the port is closed."""
        return self._loop is None

    def stats(self) -> dict[str, Any]:
        """Return the counters of `GET /__stats`."""
        return self._ask(self.endpoint.ledger.stats)

    def job(self, key: str) -> dict[str, int]:
        """Return `requests` and `billed` of one Idempotency-Key."""
        return self.endpoint.ledger.job(key)

    def requests(self) -> list[dict[str, Any]]:
        """Return the last requests, each with job, headers (lower-case names, no key) and body as text."""
        return self._ask(lambda: list(self.endpoint.ledger.recent))

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the lines of `GET /__ledger`: ended requests with a number above `after`, then running requests."""
        return self._ask(lambda: [line.written() for line in self.endpoint.ledger.lines(after)])

    def set_limits(self, limits: Limits) -> None:
        """Replace all limits; rates start unused, calls in flight stay counted. Raises BadLimits."""
        parsed = parse_limits(limits)
        self._ask(lambda: self.endpoint.limiter.replace(parsed))

    def reset(self) -> None:
        """Delete all counters and stored requests. The limits stay, and start unused."""
        self._ask(self.endpoint.reset)

    def _ask(self, question: Callable[[], T]) -> T:
        """Run `question` on the loop's thread, because only that thread changes the ledger."""
        if self._loop is None:
            return question()
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: answer.set_result(question()))
        return answer.result(timeout=READY_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


async def serve(
    *,
    host: str,
    port: int,
    key: str | None,
    idempotency: Literal["ignored", "honoured"],
    ready: Callable[[str], None],
    limits: str | None = None,
) -> None:
    """Serve until cancelled; call `ready` with the URL when the port is open.

    `limits` is JSON, or the name of a TOML or JSON file. Raises BadLimits.
    """
    limiter = ProviderLimiter(() if limits is None else load_limits(limits))
    server = FakeServer(key=key, idempotency=idempotency, limiter=limiter)
    runner = await listen(server, host=host, port=port)
    ready(f"http://{host}:{runner.addresses[0][1]}")
    try:
        await asyncio.Event().wait()
    finally:
        await stop(runner)
