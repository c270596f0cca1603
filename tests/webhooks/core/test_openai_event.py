"""The profile `openai`, checked with OpenAI's own SDK: it unwraps each event and gives it the right type."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace

import pytest

from tests.webhooks.core.finished import AT, COMPLETED, EVENT, ID, ended
from worker.core.lifecycle import Status
from worker.webhooks.core.event import freeze, freeze_test
from worker.webhooks.core.payload import Variant, sent_body, webhook_id

KEY = b"a key of thirty-two bytes, or so"

TYPES = [
    (COMPLETED, "response.completed", "ResponseCompletedWebhookEvent"),
    (replace(COMPLETED, finish_reason="tool_calls"), "response.completed", "ResponseCompletedWebhookEvent"),
    (replace(COMPLETED, finish_reason=None), "response.completed", "ResponseCompletedWebhookEvent"),
    (replace(COMPLETED, finish_reason="length"), "response.incomplete", "ResponseIncompleteWebhookEvent"),
    (replace(COMPLETED, finish_reason="content_filter"), "response.incomplete", "ResponseIncompleteWebhookEvent"),
    (ended(Status.failed), "response.failed", "ResponseFailedWebhookEvent"),
    (ended(Status.cancelled), "response.cancelled", "ResponseCancelledWebhookEvent"),
    (ended(Status.expired), "response.failed", "ResponseFailedWebhookEvent"),
]
NAMES = [f"{job.status}-{job.finish_reason}" for job, _, _ in TYPES]


def unwrap(body):
    """Sign a body as Standard Webhooks requires and pass the request to the SDK."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(api_key="unused", webhook_secret=f"whsec_{base64.b64encode(KEY).decode()}")
    identity, seconds = webhook_id(EVENT, "receiver"), str(int(time.time()))
    digest = hmac.new(KEY, f"{identity}.{seconds}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"webhook-id": identity, "webhook-timestamp": seconds, "webhook-signature": signature}
    return client.webhooks.unwrap(body, headers)


@pytest.mark.parametrize(("job", "name", "_type"), TYPES, ids=NAMES)
def test_a_body_has_exactly_the_members_that_openai_documents(job, name, _type):
    assert json.loads(freeze(EVENT, job).openai) == {
        "id": EVENT,
        "object": "event",
        "created_at": int(AT.timestamp()),
        "type": name,
        "data": {"id": ID},
    }


@pytest.mark.parametrize(("job", "name", "type_name"), TYPES, ids=NAMES)
def test_openais_sdk_unwraps_and_types_the_bytes_we_send(job, name, type_name):
    # When: the SDK reads the body as we send it
    event = unwrap(sent_body(Variant.openai, freeze(EVENT, job).openai, sequence=1))
    # Then: it has the SDK's type. The strict check matters because the SDK's lenient reader accepts anything.
    assert (type(event).__name__, event.type) == (type_name, name)
    strict = type(event).model_validate(event.to_dict(), strict=True)
    assert (strict.id, strict.object, strict.created_at, strict.data.id) == (EVENT, "event", int(AT.timestamp()), ID)


def test_openais_sdk_takes_a_test_under_its_own_name():
    assert unwrap(freeze_test(EVENT, receiver="orders", at=AT).openai).type == "receiver.test"


def test_openais_sdk_verifies_and_reads_our_own_events_too():
    event = unwrap(sent_body(Variant.full, freeze(EVENT, COMPLETED).full, sequence=1))
    assert (event.type, event.data.id) == ("job.completed", ID)
