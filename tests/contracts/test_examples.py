"""Every example is valid by its schema, and the worker reads the values that it shows."""

import json

import pytest

from tests.contracts.schemas import CONTRACTS, REQUESTS, RESPONSES, load, validator
from worker.chat.answer import Columns, columns, read_body
from worker.chat.request import wire_body
from worker.chat.stream import Assembler
from worker.chat.usage import TOKENS, normalise
from worker.core.endpoint import Endpoint
from worker.jobs.core.message import Job, read_job
from worker.queue.envelope import Envelope, decode

ENDPOINTS = {"default": Endpoint("default", url="https://one.example/v1/chat/completions")}
ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
EXAMPLES = CONTRACTS / "examples"


def job_of(path):
    job = read_job(path.read_text(), default_id=ID, endpoints=ENDPOINTS, max_request_bytes=1_000_000)
    assert isinstance(job, Job), job
    return job


def answer_of(name):
    return read_body((EXAMPLES / "responses" / f"{name}.json").read_bytes())


def reported(name):
    usage = normalise(answer_of(name).usage, has_text=True)
    return {column: count for column, count in usage.tokens.items() if count}


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_each_request_keeps_the_schema_of_job_messages(path):
    validator("job_message").validate(load(path))


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_each_request_becomes_a_job_whose_body_goes_out_as_it_came(path):
    job = job_of(path)
    body, added = wire_body(job.request, streamed=job.streamed)
    assert (json.loads(body), added) == (load(path)["request"], False)
    assert body.decode() in path.read_text()


@pytest.mark.parametrize("path", RESPONSES, ids=lambda path: path.stem)
def test_each_response_keeps_the_schema_and_is_a_complete_answer(path):
    validator("chat_completion").validate(load(path))
    answer = read_body(path.read_bytes())
    assert (answer.fault, answer.completion) == (None, load(path))


def test_the_example_with_every_field_fills_every_field():
    job = job_of(EXAMPLES / "requests" / "full_job.json")
    assert [name for name in Job.__slots__ if getattr(job, name) in (None, "default", ())] == [
        "endpoint", "n", "token_limit", "ignored",
    ]  # fmt: skip


def test_the_redis_message_holds_the_minimal_job():
    entry = (EXAMPLES / "redis_message.json").read_bytes()
    envelope = decode(entry)
    assert isinstance(envelope, Envelope)
    assert (envelope.task, envelope.id, envelope.ignored) == ("chat.submit", json.loads(entry)["headers"]["id"], ())
    assert json.loads(envelope.arguments_text) == load(EXAMPLES / "requests" / "minimal.json")


def test_the_streamed_answer_is_assembled_into_the_one_beside_it():
    stream = Assembler(max_bytes=1_000_000)
    stream.feed((EXAMPLES / "responses" / "streamed.sse").read_bytes())
    answer = stream.finish()
    assert (answer.fault, answer.completion) == (None, load(EXAMPLES / "responses" / "streamed.json"))


def test_the_documents_own_answer_fills_every_text_column():
    assert columns(answer_of("document").completion) == Columns(
        content="string",
        reasoning_content="string",
        refusal=None,
        tool_calls='[{"id":"string","type":"function","function":{"name":"string","arguments":"string"}}]',
        finish_reason="stop",
        response_id="string",
        response_model="string",
        system_fingerprint="string",
    )


def test_the_first_of_several_choices_fills_the_columns_and_all_are_kept():
    answer = answer_of("choices")
    assert columns(answer.completion).content == "Miso"
    assert [choice["finish_reason"] for choice in answer.completion["choices"]] == ["stop", "stop", "length"]


def test_tool_calls_and_refusals_have_columns():
    assert json.loads(columns(answer_of("tool_calls").completion).tool_calls)[0]["function"]["name"] == "get_weather"
    assert columns(answer_of("refusal").completion).refusal == "I cannot help with that."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
        ("tool_calls", {"cached_tokens": 64, "prompt_text_tokens": 71}),
        ("reasoning", {"reasoning_tokens": 43, "completion_text_tokens": 9}),
        ("image", {"prompt_image_tokens": 170, "prompt_text_tokens": 20}),
        ("input_audio", {"prompt_audio_tokens": 30, "prompt_text_tokens": 10}),
        ("audio", {"completion_audio_tokens": 24, "completion_text_tokens": 6}),
    ],
)
def test_each_count_the_document_names_has_a_column(name, expected):
    found = reported(name)
    assert set(expected) <= set(TOKENS)
    assert {column: found[column] for column in expected} == expected


@pytest.mark.parametrize("path", RESPONSES, ids=lambda path: path.stem)
def test_the_usage_of_an_example_is_kept_as_it_came(path):
    usage = read_body(path.read_bytes()).usage
    assert json.loads(usage) == load(path)["usage"]
