"""CPU of the client process per request and per streamed chunk: our transport and call, and httpx's own pool.

The server is another process, so only the client's CPU is counted. One run compares all of them:

    python ops/bench/transport.py [--in-flight 200 1000] [--streams 1000] [--uvloop]
"""

import argparse
import asyncio
import multiprocessing
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import httpx

from worker.core.endpoint import Endpoint
from worker.jobs.net.call import WireRequest, call, open_client

LATENCY_S = 0.2
CHUNKS, EVERY_S = 20, 0.5
BODY = (
    b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"' + b"x" * 400 + b'"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
)
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"' + b"x" * 20 + b'"}}]}\n\n'
LAST = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
REQUEST = b'{"model":"m","messages":[{"role":"user","content":"' + b"y" * 400 + b'"}]}'

Call = Callable[[], Awaitable[object]]


class FakeEndpoint(asyncio.Protocol):
    """Answers each request after LATENCY_S; a path that begins with `s` gets chunks, one every EVERY_S."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.buffer.endswith(REQUEST):
            return
        streamed, self.buffer = self.buffer.startswith(b"POST /s"), b""
        if streamed:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.transport.write(head)
            self.loop.call_later(EVERY_S, self.stream, CHUNKS)
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
            self.loop.call_later(LATENCY_S, self.transport.write, head + BODY)

    def stream(self, left: int) -> None:
        if left:
            self.transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            self.loop.call_later(EVERY_S, self.stream, left - 1)
        else:
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST))


def serve(ready: Connection) -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        server = await asyncio.get_running_loop().create_server(FakeEndpoint, sock=listener)
        ready.send(listener.getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def cpu_s(make: Call, in_flight: int, rounds: int) -> float:
    """Return the CPU of this process for `rounds` calls in each of `in_flight` tasks; a first round connects."""
    await asyncio.gather(*(make() for _ in range(in_flight)))

    async def repeat() -> None:
        for _ in range(rounds):
            await make()

    before = time.process_time()
    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    return time.process_time() - before


async def steady_cpu_s(make: Call, streams: int) -> float:
    """Return the CPU of this process per chunk while all streams run, without their beginnings and ends."""
    running = [asyncio.create_task(_awaited(make)) for _ in range(streams)]
    await asyncio.sleep(EVERY_S * CHUNKS * 0.2)
    cpu, clock = time.process_time(), time.perf_counter()
    await asyncio.sleep(EVERY_S * CHUNKS * 0.6)
    used, chunks = time.process_time() - cpu, (time.perf_counter() - clock) / EVERY_S * streams
    await asyncio.gather(*running)
    return used / chunks


async def _awaited(make: Call) -> None:
    await make()


async def measure(name: str, base: str, args: argparse.Namespace) -> None:
    peer = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None))
    ours = open_client(Endpoint("bench", base))
    try:
        for in_flight in args.in_flight:
            used = await cpu_s(_call(name, ours, peer, base + "/p"), in_flight, args.rounds)
            print(f"{name:22} {in_flight:5} in flight {used / in_flight / args.rounds * 1e3:8.3f} ms a request")
        used = await steady_cpu_s(_call(name, ours, peer, base + "/s"), args.streams)
        print(f"{name:22} {args.streams:5} streams   {used * 1e6:8.1f} µs a chunk")
        print(f"{name:22} peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:5} MiB")
    finally:
        await ours.aclose()
        await peer.aclose()


def _call(name: str, ours: httpx.AsyncClient, peer: httpx.AsyncClient, url: str) -> Call:
    if name == "call, our transport":
        endpoint = Endpoint("bench", url, key="sk-bench-0123456789")
        wire = WireRequest(REQUEST, url.endswith("/s"), None, "key", "attempt", 60.0)
        return lambda: call(ours, endpoint, wire)
    client = ours if name == "httpx, our transport" else peer

    async def read() -> None:
        async with client.stream("POST", url, content=REQUEST) as response:
            async for _ in response.aiter_raw():
                pass

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--without-peer", action="store_true", help="leave out httpx's own pool, which takes a minute")
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ready, ready_there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(ready_there,), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{ready.recv()}"
    names = ["call, our transport", "httpx, our transport", *([] if args.without_peer else ["httpx, its own pool"])]
    try:
        for name in names:
            if args.uvloop:
                import uvloop

                uvloop.run(measure(name, base, args))
            else:
                asyncio.run(measure(name, base, args))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
