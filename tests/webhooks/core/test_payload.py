"""One delivery: its id, the frozen body that it sends, and the members added to it."""

import json
import re
from dataclasses import replace

import pytest

from tests.webhooks.core.finished import AT, COMPLETED, EVENT
from worker.webhooks.core.event import AUTO_BYTES, FULL_BYTES, SPLICED_BYTES, EventType, Payload, freeze
from worker.webhooks.core.payload import Profile, Variant, convenience_headers, sent_body, variant, webhook_id

OURS, OPENAI = Profile.afterword, Profile.openai
THIN, FULL = Variant.thin, Variant.full
FITS_AUTO, FITS = AUTO_BYTES - SPLICED_BYTES, FULL_BYTES - SPLICED_BYTES


def test_a_webhook_id_belongs_to_one_event_at_one_receiver():
    ids = {webhook_id(event, receiver) for event in ("evt_1", "evt_2") for receiver in ("a", "b")}
    assert len(ids) == 4
    assert webhook_id("evt_1", "a") == webhook_id("evt_1", "a")


@pytest.mark.parametrize("receiver", ["", "a.b", "a\n.1764040000.{}", "é😀", "x" * 10_000])
def test_a_webhook_id_has_no_dot_for_any_receiver(receiver):
    assert re.fullmatch("msg_[0-9a-f]{32}", webhook_id(EVENT, receiver))


@pytest.mark.parametrize(
    ("payload", "profile", "size", "too_large", "expected"),
    [
        (Payload.auto, OURS, 500, False, FULL),
        (Payload.auto, OURS, FITS_AUTO, False, FULL),
        (Payload.auto, OURS, FITS_AUTO + 1, False, THIN),
        (Payload.auto, OURS, None, False, THIN),
        (Payload.auto, OURS, 500, True, THIN),
        (Payload.full, OURS, FITS_AUTO + 1, False, FULL),
        (Payload.full, OURS, FITS, False, FULL),
        (Payload.full, OURS, FITS + 1, False, THIN),
        (Payload.full, OURS, None, False, THIN),
        (Payload.full, OURS, 500, True, THIN),
        (Payload.thin, OURS, 500, False, THIN),
        (Payload.thin, OPENAI, 500, False, Variant.openai),
        (Payload.auto, OPENAI, None, True, Variant.openai),
    ],
)
def test_a_receiver_gets_the_payload_it_registered_for(payload, profile, size, too_large, expected):
    assert variant(payload, profile, full_bytes=size, refused_as_too_large=too_large) == expected


@pytest.mark.parametrize("chosen", [THIN, FULL])
def test_members_that_differ_between_receivers_come_before_the_payload(chosen):
    bodies = freeze(EVENT, COMPLETED)
    frozen = bodies.thin if chosen is THIN else bodies.full
    plain = json.loads(sent_body(chosen, frozen, sequence=3))
    after_a_gap = json.loads(sent_body(chosen, frozen, sequence=4, previous_undelivered=True))
    assert list(plain) == ["id", "type", "timestamp", "sequence", "data"]
    assert list(after_a_gap) == ["id", "type", "timestamp", "sequence", "previous_undelivered", "data"]
    assert (plain["sequence"], after_a_gap["sequence"], after_a_gap["previous_undelivered"]) == (3, 4, True)
    assert plain["data"] == after_a_gap["data"] == json.loads(frozen)["data"]


def test_a_payload_that_looks_like_an_envelope_is_not_taken_for_one():
    response = {"id": "evt_x", "data": {"x": 1, "data": {}}}
    job = replace(COMPLETED, custom_id='x","data":{"', response=json.dumps(response, separators=(",", ":")))
    sent = json.loads(sent_body(FULL, freeze(EVENT, job).full, sequence=7))
    assert (sent["sequence"], sent["data"]["custom_id"], sent["data"]["response"]) == (7, 'x","data":{"', response)


def test_added_members_stay_within_the_reserved_bytes():
    frozen = freeze(EVENT, COMPLETED).thin
    sent = sent_body(THIN, frozen, sequence=2**63 - 1, previous_undelivered=True)
    assert 0 < len(sent) - len(frozen) <= SPLICED_BYTES


def test_nothing_is_added_to_an_event_in_openais_words():
    frozen = freeze(EVENT, COMPLETED).openai
    assert sent_body(Variant.openai, frozen, sequence=3, previous_undelivered=True) == frozen


def test_the_convenience_headers_are_plain_texts():
    headers = convenience_headers(EventType.failed, delivery_id="d-1", attempt=3, first_attempt_at=AT)
    assert headers == {
        "x-afterword-event-type": "job.failed",
        "x-afterword-delivery-id": "d-1",
        "x-afterword-attempt": "3",
        "x-afterword-first-attempt-at": "2026-11-23T03:14:17.250000Z",
    }
    assert {type(value) for value in headers.values()} == {str}
