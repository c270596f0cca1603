"""Properties of every stream in every split, and of arbitrary bytes."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chat.stream_texts import CASES, PLENTY, assemble, event
from worker.chat.answer import Answer, columns, has_output, read_body
from worker.chat.stream import Assembler
from worker.chat.usage import normalise
from worker.core.storable_text import clean_json, clean_text

words = st.text(max_size=8) | st.sampled_from(["\ud83d", "\ude00", "\0", "\u2028", "\x85", "\r\n", "data: x\n\n"])
numbers = st.integers(-2, 10) | st.just(2**70) | st.floats(allow_nan=True)
scalars = st.none() | st.booleans() | numbers | words
NAMES = """id index type function name arguments content text thinking role refusal reasoning reasoning_content
    tool_calls function_call audio data transcript expires_at logprobs annotations message delta finish_reason choices
    usage x_groq error object model created system_fingerprint service_tier prompt_tokens prompt_tokens_details
    cached_tokens cost"""
names = st.sampled_from(NAMES.split())
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
calls = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 3),
            "id": st.sampled_from(["", "a", "b", None]),
            "function": st.fixed_dictionaries(
                {}, optional={"name": st.sampled_from(["", "f", "g"]), "arguments": words}
            ),
        },
    ),
    max_size=3,
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": words | st.none(),
        "reasoning_content": words,
        "refusal": words,
        "tool_calls": calls,
        "audio": st.fixed_dictionaries(
            {}, optional={"data": st.sampled_from(["AQID", "AQ==", "A"]), "transcript": words}
        ),
    },
)
choices = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "delta": deltas}, optional={"finish_reason": st.sampled_from([None, "", "stop"])}
    ),
    max_size=3,
)
usages = st.none() | st.fixed_dictionaries({}, optional={"prompt_tokens": st.integers(0, 9), "cost": st.floats(0, 1)})
chunks = st.fixed_dictionaries({"choices": choices}, optional={"id": st.sampled_from(["", "a"]), "usage": usages})
lines = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A valid stream: chunks of any shape between comments, with any line ends, some over several lines."""
    stream = draw(st.sampled_from(["", "\ufeff", "\n"]))
    for value in draw(st.lists(chunks, max_size=6)):
        end = draw(lines)
        text = json.dumps(value, ensure_ascii=draw(st.booleans()) or not storable(value))
        if draw(st.booleans()):
            text = text.replace(",", f",{end}data: ", 1) if '",' not in text else text
        stream += draw(st.sampled_from(["", f": ping{end}", f"event: x{end}", end])) + f"data: {text}{end}{end}"
    return (stream + draw(st.sampled_from(["", "data: [DONE]\n\n", "data: cut"]))).encode()


def storable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def in_splits(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def use(answer: Answer) -> None:
    """Use an answer as later code does; no step may fail."""
    columns(answer.completion)
    normalise(answer.usage, flags=answer.usage_flags, has_text=has_output(answer.completion), limit=5)
    for part in (answer.completion, answer.provider, answer.usage):
        json.loads(clean_json(part), parse_constant=int)


@given(streams(), st.lists(st.integers(0, 5000), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_split_of_a_stream_assembles_alike(stream: bytes, cuts: list[int]) -> None:
    whole = assemble(stream)
    assert assemble(in_splits(stream, cuts)) == whole
    assert assemble(stream[at : at + 1] for at in range(len(stream))) == whole
    use(whole)


@given(st.lists(anything, max_size=5), st.integers(1, 200))
@settings(max_examples=500, deadline=None)
def test_no_json_makes_anything_raise(values: list[Any], size: int) -> None:
    body = b"".join(event(json.dumps(value)) for value in values)
    use(assemble(body[at : at + size] for at in range(0, len(body), size)))
    for value in values:
        use(read_body(json.dumps(value).encode()))
        use(assemble(event({"choices": [{"delta": value}]})))
        use(assemble(event({"choices": [value], "usage": value})))


@given(st.binary(max_size=300), st.integers(1, 50), st.integers(0, 400))
@settings(max_examples=500, deadline=None)
def test_no_bytes_make_anything_raise(body: bytes, size: int, budget: int) -> None:
    assembler = Assembler(n=2, max_bytes=budget)
    for at in range(0, len(body), size):
        assembler.feed(body[at : at + size])
    use(assembler.finish(reset=True))
    use(read_body(body))
    normalise(body, has_text=True)
    json.loads(clean_json(body))


@given(st.sampled_from([case["sse"].encode() for case in CASES]), st.data())
@settings(max_examples=500, deadline=None)
def test_no_damage_to_a_real_stream_makes_anything_raise(stream: bytes, data: st.DataObject) -> None:
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    assembler = Assembler(max_bytes=PLENTY)
    assembler.feed(bytes(damaged))
    use(assembler.finish())


@given(anything)
@settings(max_examples=500, deadline=None)
def test_any_parsed_text_can_be_cleaned(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        again = json.loads(text)
        json.loads(clean_json(text), parse_constant=int)
        json.loads(clean_json(again if not isinstance(again, str) else [again]), parse_constant=int)


@given(st.text(st.characters(categories=None)))
def test_clean_text_can_be_stored(text: str) -> None:
    clean = clean_text(text)
    assert "\0" not in clean
    clean.encode()
