"""The bodies of events: their content, their size, and valid JSON for every job."""

import json
import time
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.webhooks.core.finished import AT, COMPLETED, EVENT, ID, answering, ended
from worker.chat.usage import TOKENS
from worker.core.lifecycle import FINAL, Status
from worker.core.storable_text import clean_json, clean_text, clean_value
from worker.webhooks.core.event import (
    AUTO_BYTES,
    FULL_BYTES,
    SPLICED_BYTES,
    USAGE_CHARACTERS,
    EventType,
    Finished,
    Payload,
    event_id_of,
    event_type,
    freeze,
    freeze_test,
    instant_text,
)

JSON_TEXTS = ("response", "usage", "error", "metadata")
STATUSES = sorted(FINAL)


def full(job, payloads=frozenset(Payload)):
    return json.loads(freeze(EVENT, job, payloads).full)


def thin(job):
    return json.loads(freeze(EVENT, job).thin)


def overhead(letter="x"):
    """Return the bytes of a full body without the response."""
    return len(freeze(EVENT, answering(2, letter)).full) - 2


def test_every_final_status_has_its_event_and_no_other_has():
    assert {event_type(status) for status in FINAL} == set(EventType) - {EventType.test}
    with pytest.raises(AssertionError, match="queued is not final"):
        event_type(Status.queued)


@pytest.mark.parametrize("status", STATUSES)
def test_an_event_names_itself_its_time_and_its_job(status):
    for event in (thin(ended(status)), full(ended(status))):
        assert list(event) == ["id", "type", "timestamp", "data"]
        assert (event["id"], event["type"]) == (EVENT, f"job.{status}")
        assert event["timestamp"] == event["data"]["finished_at"] == "2026-11-23T03:14:17.250000Z"
        assert (event["data"]["id"], event["data"]["status"]) == (ID, status)


@pytest.mark.parametrize("status", STATUSES)
def test_thin_and_full_differ_in_the_result_alone(status):
    job = ended(status)
    small, large = thin(job)["data"], full(job)["data"]
    assert small.pop("result_omitted") is True
    assert large.pop("result_omitted") is False
    assert large.pop("response") == (None if job.response is None else json.loads(job.response))
    assert large.pop("error") == (None if job.error is None else json.loads(job.error))
    assert small == large


def test_a_body_has_every_column_of_the_job_under_its_own_name():
    columns = {field.name for field in fields(Finished)} - {"tokens", "cursor"}
    assert set(full(COMPLETED)["data"]) == {*columns, *TOKENS, "result_omitted"}
    assert full(replace(COMPLETED, cursor=7))["data"]["cursor"] == 7


def test_no_content_is_in_a_thin_body():
    job = replace(COMPLETED, response='{"choices":["the secret"]}', error='{"provider":"the secret"}')
    bodies = freeze(EVENT, job)
    assert b"the secret" in bodies.full
    assert b"the secret" not in bodies.thin + bodies.openai


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (None, None),
        (Decimal("0"), "0"),
        (Decimal("0E-8"), "0.00000000"),
        (Decimal("1E-29"), "0.00000000000000000000000000001"),
        (Decimal("1E+14"), "100000000000000"),
        (Decimal("0.1234567890123456789012345678901234567890"), "0.1234567890123456789012345678901234567890"),
    ],
)
def test_a_cost_keeps_every_digit_as_a_text(cost, shown):
    assert thin(replace(COMPLETED, reported_cost=cost))["data"]["reported_cost"] == shown


def test_a_count_that_was_not_reported_is_null_and_zero_is_zero():
    data = thin(replace(COMPLETED, tokens={"prompt_tokens": 0, "total_tokens": 2**63 - 1}))["data"]
    assert (data["prompt_tokens"], data["total_tokens"], data["cached_tokens"]) == (0, 2**63 - 1, None)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (AT, "2026-11-23T03:14:17.250000Z"),
        (datetime(2026, 11, 23, 4, 0, tzinfo=timezone(timedelta(hours=1))), "2026-11-23T03:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_instants_are_written_as_the_views_write_them(instant, text):
    assert instant_text(instant) == text


def test_instants_are_in_utc_in_any_time_zone_of_the_worker(monkeypatch):
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert instant_text(AT) == "2026-11-23T03:14:17.250000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("payloads", "limit"),
    [
        ({Payload.auto}, AUTO_BYTES),
        ({Payload.auto, Payload.thin}, AUTO_BYTES),
        ({Payload.full}, FULL_BYTES),
        (set(Payload), FULL_BYTES),
    ],
    ids=["auto", "auto and thin", "full", "all"],
)
@pytest.mark.parametrize("letter", ["x", "é", "😀"], ids=["one byte", "two bytes", "four bytes"])
def test_a_full_body_is_frozen_up_to_the_size_some_receiver_may_be_sent(payloads, limit, letter):
    # Given: the longest answer of this letter that fits
    width = len(letter.encode())
    count = (limit - SPLICED_BYTES - overhead(letter) - 2) // width
    # When: this answer and an answer with one more letter are frozen
    fits, exceeds = (freeze(EVENT, answering(count + 2 + more, letter), payloads) for more in (0, 1))
    # Then: only the first has a full body
    assert fits.full is not None
    assert limit - SPLICED_BYTES - width < len(fits.full) <= limit - SPLICED_BYTES
    assert exceeds.full is None
    assert json.loads(exceeds.thin)["data"]["result_omitted"] is True


@pytest.mark.parametrize("payloads", [set(), {Payload.thin}], ids=["nobody", "thin"])
def test_no_full_body_is_frozen_if_no_receiver_wants_a_result(payloads):
    assert freeze(EVENT, COMPLETED, payloads).full is None


def test_a_large_error_counts_as_a_large_answer_does():
    job = replace(ended(Status.failed), error=json.dumps({"provider": "x" * AUTO_BYTES}))
    assert freeze(EVENT, job, {Payload.auto}).full is None
    assert freeze(EVENT, job, {Payload.full}).full is not None


@pytest.mark.parametrize(("characters", "kept"), [(USAGE_CHARACTERS, True), (USAGE_CHARACTERS + 1, False)])
def test_a_usage_object_is_sent_up_to_four_kibibytes(characters, kept):
    usage = json.dumps({"x": "y" * (characters - len('{"x": ""}'))})
    assert len(usage) == characters
    for event in (thin(replace(COMPLETED, usage=usage)), full(replace(COMPLETED, usage=usage))):
        assert event["data"]["usage"] == (json.loads(usage) if kept else None)
        assert event["data"]["prompt_tokens"] == 5


def test_a_thin_body_stays_small_for_any_answer():
    huge = "\x01" * 1_000_000
    job = replace(COMPLETED, model=huge, finish_reason=huge, error_message=huge, usage=json.dumps([huge]))
    body = freeze(EVENT, job).thin
    assert len(body) < 20_000
    assert json.loads(body)["data"]["finish_reason"] == "\x01" * 254 + "…"


def test_the_worst_that_a_job_can_hold_stays_within_the_limit_of_all_bodies():
    label = "\x01" * 255
    job = replace(
        COMPLETED,
        **dict.fromkeys(["tenant", "batch", "custom_id", "idempotency_key", "ordering_key", "endpoint"], label),
        **dict.fromkeys(["model", "finish_reason", "error_message"], "\x01" * 100_000),
        tokens=dict.fromkeys(TOKENS, 2**63 - 1),
        usage=f'"{"😀" * (USAGE_CHARACTERS - 2)}"',
        metadata=json.dumps({f"{number:x}" * 64: "\x01" * 512 for number in range(16)}),
    )
    assert len(freeze(EVENT, job).thin) + SPLICED_BYTES < FULL_BYTES


TEXTS = {
    "empty": "",
    "braces and quotes": '}},"data":{"id":"evt_x"}} \\" \\\\ {{{[[',
    "controls": "".join(map(chr, range(1, 32))),
    "separators": "\u2028\u2029\x7f\x85",
    "huge characters": "😀\U0010ffff\ufffe\uffff" * 300,
    "cleaned nul and halves": clean_text("a\0b\ud800c\udfff"),
    "script": "</script><!-- ]]> %s {0} $1",
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_arrives_as_it_was_stored(name):
    text = TEXTS[name]
    response = clean_value({"choices": [{"message": {"content": text}}], text: text})
    job = replace(
        COMPLETED, batch=text, custom_id=text, error_message=text, response=response, metadata=clean_value({"a": text})
    )
    data = full(job)["data"]
    assert data["response"] == {"choices": [{"message": {"content": text}}], text: text}
    assert (data["batch"], data["custom_id"], data["error_message"], data["metadata"]) == (
        text,
        text,
        text,
        {"a": text},
    )


def test_json_texts_are_spliced_in_character_for_character():
    response = ' { "a" : 1.50 , "a" : 12345678901234567890123 , "\\u00e9" : "\\/" } '
    assert response.encode() in freeze(EVENT, replace(COMPLETED, response=response)).full


def test_a_text_that_no_database_would_hold_costs_no_job_its_event():
    data = full(replace(COMPLETED, custom_id="a\ud800b\0", response='{"a":"\udfff"}'))["data"]
    assert (data["custom_id"], data["response"]) == ("a?b\0", {"a": "?"})


def test_a_test_event_says_that_it_is_one():
    bodies = freeze_test(EVENT, receiver='my "own"', at=AT)
    event = json.loads(bodies.thin)
    assert (bodies.type, bodies.full) == (EventType.test, None)
    assert (event["id"], event["type"], event["timestamp"]) == (EVENT, "receiver.test", "2026-11-23T03:14:17.250000Z")
    assert event["data"] == {"receiver": 'my "own"', "message": "This is a test. No job has ended."}


def test_an_events_id_is_made_of_a_uuid_and_has_no_dot():
    assert event_id_of(UUID(ID)) == "evt_018f4a5e7c1b7d2e9a530242ac120002"


# Values that json.loads can return: with NaN, infinities, lone surrogates, U+0000.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
CLEAN_TEXTS = VALUES.map(clean_value) | VALUES.map(json.dumps).map(clean_json)
COLUMN_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(STATUSES),
    st.fixed_dictionaries(dict.fromkeys(JSON_TEXTS, st.none() | CLEAN_TEXTS)),
    st.fixed_dictionaries(dict.fromkeys(["batch", "custom_id", "model", "error_message"], st.none() | COLUMN_TEXTS)),
)
def test_any_clean_texts_give_json_with_the_same_values(status, json_texts, texts):
    data = full(replace(COMPLETED, status=status, **json_texts, **texts))["data"]
    for name, text in json_texts.items():
        assert data[name] == (None if text is None else json.loads(text))
    for name, text in texts.items():
        assert data[name] == text
