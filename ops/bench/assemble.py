"""Measure the CPU microseconds to parse and assemble one streamed chunk: `python ops/bench/assemble.py`.

Each figure is the best of several runs, so other work on the machine disturbs it little.
"""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from worker.chat.raw_body import RawLog
from worker.chat.sse import Events
from worker.chat.stream import Assembler
from worker.core.lenient_json import read

CHUNKS = 2000
RUNS = 15


def main() -> None:
    """Print a table: the shape of the stream, bytes a chunk, microseconds a chunk."""
    words = f"the quick brown fox jumps over lazy dogs {'and runs away ' * 3}".split()
    plain = [_event({"content": f" {words[i % len(words)]}"}) for i in range(CHUNKS)]
    calls = [_event({"tool_calls": [{"index": i % 2, "function": {"arguments": '{"a":'}}]}) for i in range(CHUNKS)]
    probabilities = [_event({"content": " word"}, logprobs=_logprobs()) for _ in range(CHUNKS)]
    counted = [_event({"content": " word"}, usage={"prompt_tokens": 9, "completion_tokens": i}) for i in range(CHUNKS)]
    halves = [half for event in plain for half in (event[:100], event[100:])]
    streams: dict[str, list[bytes]] = {
        "one event a piece": plain,
        "one event a piece, CRLF": [event.replace(b"\n", b"\r\n") for event in plain],
        "ten events a piece": _grouped(plain, 10),
        "seventy events a piece (16 KiB)": _grouped(plain, 70),
        "an event in two pieces": halves,
        "tool call fragments": calls,
        "usage in every chunk": counted,
        "five logprobs a chunk": probabilities,
    }
    print(f"Python {platform.python_version()}, {CHUNKS} chunks a stream, best of {RUNS} runs, CPU µs a chunk")
    for name, pieces in streams.items():
        size = sum(map(len, pieces)) / CHUNKS
        print(f"  {name:34} {size:6.0f} bytes {_best(lambda pieces=pieces: _assemble(pieces)):7.2f} µs")
    print("  parts of one event a piece:")
    texts = [event[6:-2].decode() for event in plain]
    print(f"  {'framing':34} {'':12} {_best(lambda: _each(Events().feed, plain)):7.2f} µs")
    print(f"  {'JSON as we read it':34} {'':12} {_best(lambda: _each(read, texts)):7.2f} µs")
    print(f"  {'JSON, bare json.loads':34} {'':12} {_best(lambda: _each(json.loads, texts)):7.2f} µs")
    print(f"  {'raw log (beside the assembly)':34} {'':12} {_best(lambda: _each(RawLog().add, plain)):7.2f} µs")


def _event(delta: dict[str, object], **rest: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": rest.pop("logprobs", None), "finish_reason": None}
    chunk = {
        "id": "chatcmpl-A1b2C3d4E5f6",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "DeepSeek-V3.2",
        "system_fingerprint": "fp_0123456789",
        "choices": [choice],
        "usage": None,
        **rest,
    }
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()


def _logprobs() -> dict[str, object]:
    token = {"token": " word", "logprob": -0.31725305, "bytes": [32, 119, 111, 114, 100]}
    return {"content": [{**token, "top_logprobs": [token] * 5}], "refusal": None}


def _grouped(events: list[bytes], size: int) -> list[bytes]:
    return [b"".join(events[start : start + size]) for start in range(0, len(events), size)]


def _assemble(pieces: list[bytes]) -> None:
    assembler = Assembler(max_bytes=1 << 30)
    for piece in pieces:
        assembler.feed(piece)


def _each(call: Callable[..., object], items: list[bytes] | list[str]) -> None:
    for item in items:
        call(item)


def _best(run: Callable[[], None]) -> float:
    times = []
    for _ in range(RUNS):
        began = process_time()
        run()
        times.append(process_time() - began)
    return min(times) / CHUNKS * 1e6


if __name__ == "__main__":
    main()
