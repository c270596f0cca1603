"""An endpoint's JSON may have more containers than any real answer, up to a limit; brackets in strings do not count."""

import json

import pytest

from worker.chat.answer import AnswerKind, read_body
from worker.chat.stream import Assembler
from worker.core.lenient_json import MOST_CONTAINERS, TooManyParts, read

MIB = 1024 * 1024


def choice(**more: object) -> dict[str, object]:
    return {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"} | more


def body(**more: object) -> bytes:
    return json.dumps({"id": "c", "choices": [choice(**more)]}, separators=(",", ":")).encode()


def filled(unit: str, size: int) -> str:
    return '{"choices":[{"message":{}}],"x":[' + (unit * (size // len(unit))).rstrip(",") + "]}"


@pytest.mark.parametrize("unit", ["[],", "{},", "[1],", "[[]],", '{"":1},', '{"a":[]},', '["\\"]"],'])
@pytest.mark.parametrize("size", [4 * MIB, 8 * MIB])
def test_a_text_of_brackets_is_not_parsed(unit: str, size: int) -> None:
    with pytest.raises(TooManyParts):
        read(filled(unit, size))


def test_no_text_has_more_containers_than_memory_is_for() -> None:
    sparse = "[" + ("[]," + " " * 16) * (MOST_CONTAINERS + 1) + "0]"
    with pytest.raises(TooManyParts):
        read(sparse)


def test_an_answer_of_brackets_is_too_large_and_is_not_bought_again() -> None:
    answer = read_body(filled("[],", 2 * MIB).encode())
    assert (answer.completion, answer.fault) == (None, AnswerKind.answer_too_large)


def test_an_event_of_brackets_is_too_large() -> None:
    assembler = Assembler(max_bytes=8 * MIB)
    assembler.feed(b'data: {"choices":[{"delta":{"content":"he"}}]}\n\n')
    assembler.feed(b"data: " + filled("{},", 2 * MIB).encode() + b"\n\n")
    answer = assembler.finish()
    assert assembler.failed
    assert answer.fault is AnswerKind.answer_too_large
    assert answer.completion is not None, "a paid answer is kept"


@pytest.mark.parametrize("text", ["[" * 2 * MIB, "{}[],\n" * MIB, '\\"[{' * MIB, "{" * MIB + "\\"])
def test_brackets_in_a_text_are_no_structure(text: str) -> None:
    answer = read_body(body(note=text))
    assert answer.fault is None


PLAIN = '{"token":"a","logprob":-0.1,"bytes":[97]}'


@pytest.mark.parametrize(("tokens", "alternatives"), [(100_000, 1), (16_000, 20)])
def test_log_probabilities_of_a_long_answer_are_read(tokens: int, alternatives: int) -> None:
    entry = f'{PLAIN[:-1]},"top_logprobs":[{",".join([PLAIN] * alternatives)}]}}'
    text = body(logprobs={"content": ["here"]}).decode().replace('"here"', ",".join([entry] * tokens))
    assert read_body(text.encode()).fault is None


def test_an_image_of_five_megabytes_is_read() -> None:
    assert read_body(body(images=[{"url": "data:image/png;base64," + "QUJD" * (5 * MIB // 4)}])).fault is None


@pytest.mark.parametrize("text", ['{"a": "' + "[" * 100_000, '"' * 200_000 + "[" * 100_000, "[" * 70_000 + '"\\'])
def test_half_a_text_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(text)
