"""Large answers are parsed in threads, whole or as one event; a call that is cut during it keeps its answer."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.net.raw_server import Peer, RawServer
from tests.net.wire import COMPLETION, DONE, STREAM_HEAD, STREAMED, WIRE, answer, chunk, code, delta, endpoint, event
from worker.core.failure import ErrorCode
from worker.jobs.net.call import WireRequest, call, open_client
from worker.jobs.net.progress import LARGE_BYTES, Progress, Reply

IMAGE = "QUJD" * LARGE_BYTES
WHOLE = answer(json.dumps(COMPLETION | {"image": IMAGE}).encode())
LARGE_EVENT = event({"choices": [{"delta": {"images": [{"data": IMAGE}]}}]})
STREAM = STREAM_HEAD + b"".join(chunk(part) for part in (LARGE_EVENT, delta("hello", "stop"), DONE, b""))


class Queue(ThreadPoolExecutor):
    """An executor with one thread; `submitted` is set when work waits for it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.submitted = asyncio.Event()

    def submit(self, *work: Any, **named: Any) -> Any:
        future = super().submit(*work, **named)
        self.submitted.set()
        return future


def says(wire: bytes) -> RawServer:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(wire)

    return RawServer(script)


def hello(reply: Reply) -> bool:
    assert reply.answer is not None
    assert reply.answer.completion is not None
    return reply.answer.completion["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(("wire", "request_"), [(WHOLE, WIRE), (STREAM, STREAMED)], ids=["whole", "stream"])
def test_a_large_answer_is_complete_and_its_size_is_known(wire: bytes, request_: WireRequest) -> None:
    async def run(url: str) -> Reply:
        async with open_client(endpoint(url)) as client:
            return await call(client, endpoint(url), request_)

    with says(wire) as server:
        reply = asyncio.run(run(server.url))
    assert code(reply) is None
    assert hello(reply)
    assert reply.body_bytes > len(IMAGE)
    # The compressed size does not predict the work of parsing.
    assert len(reply.raw) < LARGE_BYTES


def test_a_call_cancelled_while_its_answer_is_parsed_keeps_it() -> None:
    go_on = threading.Event()

    async def run(url: str) -> Progress:
        where, progress, queue = endpoint(url), Progress(), Queue()
        asyncio.get_running_loop().set_default_executor(queue)
        queue.submit(go_on.wait, 10.0)
        queue.submitted.clear()
        async with open_client(where) as client:
            task = asyncio.create_task(call(client, where, WIRE, progress))
            await queue.submitted.wait()
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done(), "the thread still parses the answer"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        await progress.finish(reset=True)
        return progress

    with says(WHOLE) as server:
        # An address instead of a name, because the same thread resolves names.
        reply = asyncio.run(run(server.url.replace("localhost", "127.0.0.1"))).cut(ErrorCode.cancelled)
    assert reply.failure is None
    assert hello(reply)
