"""The schema of webhook events accepts the code's events and refuses others; each example equals the code's event."""

import copy
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.event_examples import COMPLETED, EVENT, EXAMPLES, FAILED, pretty
from tests.contracts.schemas import EVENTS, load, schema, validator
from worker.chat.usage import TOKENS
from worker.core.lifecycle import FINAL, Status
from worker.core.storable_text import clean_value
from worker.webhooks.core.event import EventType, FinishedJob, Payload, freeze
from worker.webhooks.core.openai_event import openai_type
from worker.webhooks.core.payload import Profile, Variant, sent_body, variant

EVENT_SCHEMA = validator("webhook_event")
DEFS = schema("webhook_event")["$defs"]
OPENAI_TYPES = {openai_type(kind, reason) for kind in EventType for reason in (None, "length")}


def errors(event):
    return [error.message for error in EVENT_SCHEMA.iter_errors(event)]


def test_there_is_an_example_of_every_event_in_both_profiles():
    types = {load(path)["type"] for path in EVENTS}
    assert types == {*EventType, *OPENAI_TYPES}
    assert {path.stem for path in EVENTS} == set(EXAMPLES)


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_an_example_is_what_the_code_sends_and_keeps_the_schema(path):
    remedy = "run python -m tests.contracts.event_examples"
    assert path.read_text() == pretty(EXAMPLES[path.stem]), remedy
    EVENT_SCHEMA.validate(load(path))


def test_schema_and_code_know_the_same_columns_and_types():
    columns = {field.name for field in fields(FinishedJob)} - {"tokens", "response", "error"}
    assert set(DEFS["job"]["properties"]) == {*columns, *TOKENS}
    assert set(DEFS["job"]["required"]) == {*columns, *TOKENS} - {"cursor"}
    assert set(DEFS["job_event"]["properties"]["type"]["enum"]) == set(EventType) - {EventType.test}
    assert set(DEFS["openai_event"]["properties"]["type"]["enum"]) == OPENAI_TYPES
    assert DEFS["job"]["properties"]["status"]["enum"] == [status for status in Status if status in FINAL]


def _drop(name):
    return lambda event: event["data"].pop(name)


def _set(name, value):
    return lambda event: event["data"].update({name: value})


@pytest.mark.parametrize(
    ("example", "damage"),
    [
        ("job_completed", lambda event: event.pop("sequence")),
        ("job_completed", lambda event: event.update(sequence=0)),
        ("job_completed", lambda event: event.update(type="job.failed")),
        ("job_completed", lambda event: event.update(previous_undelivered=False)),
        ("job_completed", lambda event: event.update(id="evt.1")),
        ("job_completed", lambda event: event.update(timestamp="2026-11-23T03:14:15Z")),
        ("job_completed", _drop("response")),
        ("job_completed", _drop("prompt_tokens")),
        ("job_completed", _set("result_omitted", True)),
        ("job_completed", _set("reported_cost", 0.1)),
        ("job_completed_thin", _set("response", None)),
        ("job_completed_thin", _set("result_omitted", False)),
        ("job_failed", _set("status", "completed")),
        ("job_failed", _set("error", {"code": "x"})),
        ("receiver_test", _drop("receiver")),
        ("openai_completed", lambda event: event.pop("object")),
        ("openai_completed", lambda event: event.update(type="response.expired")),
        ("openai_completed", lambda event: event.update(created_at="1764040000")),
    ],
)
def test_the_schema_refuses_what_is_not_sent(example, damage):
    event = json.loads(EXAMPLES[example])
    assert not errors(event)
    damage(event)
    assert errors(event)


def test_a_receiver_that_keeps_the_schema_takes_members_that_come_later():
    for body in EXAMPLES.values():
        event = json.loads(body)
        later = {**event, "new": 1, "data": {**event["data"], "new": 1}}
        assert not errors(later)


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([COMPLETED, FAILED]),
    st.sampled_from([(payload, Profile.afterword) for payload in Payload] + [(Payload.thin, Profile.openai)]),
    st.fixed_dictionaries(dict.fromkeys(["batch", "custom_id", "model", "finish_reason", "ordering_key"], TEXTS)),
    st.dictionaries(st.sampled_from(TOKENS), st.none() | st.integers(0, 2**63 - 1)),
    st.none() | st.decimals(0, 10**14, allow_nan=False, places=20),
    st.integers(0, 300_000),
    st.booleans(),
)
def test_whatever_a_job_holds_what_is_sent_keeps_the_schema(job, receiver, texts, tokens, cost, size, gap):
    payload, profile = receiver
    answer = clean_value({"choices": [{"message": {"content": "x" * size}}]})
    job = replace(copy.copy(job), **texts, tokens=tokens, reported_cost=cost)
    job = replace(job, response=answer) if job.status is Status.completed else job
    bodies = freeze(EVENT, job, {payload})
    chosen = variant(payload, profile, full_bytes=None if bodies.full is None else len(bodies.full))
    frozen = {Variant.thin: bodies.thin, Variant.full: bodies.full, Variant.openai: bodies.openai}[chosen]
    body = sent_body(chosen, frozen, sequence=2, previous_undelivered=gap)
    assert len(body) <= 256 * 1024
    assert not errors(json.loads(body))
