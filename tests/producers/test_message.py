"""The job message of the queue and the inbox, and the values that compose refuses."""

import json
import math
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from afterword.message import NAMES, compose
from tests.producers.made import REQUEST, read
from worker.jobs.core.message import Job
from worker.jobs.core.message_fields import FIELDS

PLUS_TWO = timezone(timedelta(hours=2))
EVERYTHING: dict[str, Any] = {
    "tenant": "acme", "idempotency_key": "order-7", "endpoint": "default", "priority": 1,
    "not_before": datetime(2030, 1, 1, 12, tzinfo=PLUS_TWO), "deadline": "2030-01-02T00:00:00Z", "timeout_s": 30,
    "max_attempts": 2, "webhook": {"to": "billing"}, "ordering_key": "o", "batch": "b", "custom_id": "c",
    "metadata": {"a": "b"}, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}  # fmt: skip


def sent(**options: Any) -> dict[str, Any]:
    parsed = json.loads(compose(REQUEST, options)[1])
    assert isinstance(parsed, dict)
    return parsed


def test_the_options_are_the_fields_of_the_job_message() -> None:
    assert set(NAMES) == set(FIELDS) - {"request", "version"}
    assert {*EVERYTHING, "id"} == set(NAMES)


def test_the_worker_reads_every_option() -> None:
    job_id, text = compose(REQUEST, EVERYTHING)

    job = read(text, default_id=job_id)

    assert isinstance(job, Job), job
    assert (job.id, job.tenant, job.idempotency_key, job.priority) == (job_id, "acme", "order-7", 1)
    assert job.not_before == datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert (job.timeout_s, job.max_attempts, job.webhook) == (30, 2, '{"to":"billing"}')
    assert (job.ordering_key, job.batch, job.custom_id, job.metadata) == ("o", "b", "c", {"a": "b"})
    assert job.traceparent == EVERYTHING["traceparent"]
    assert json.loads(job.request) == REQUEST


def test_a_new_id_is_made_for_each_job() -> None:
    ids = {compose(REQUEST, {})[0] for _ in range(3)}

    assert len(ids) == 3
    assert all(str(uuid.UUID(each)) == each for each in ids)


@pytest.mark.parametrize("given", [uuid.UUID(int=10), "0000000000000000000000000000000A", str(uuid.UUID(int=10))])
def test_a_given_id_is_written_as_lower_case_text(given: Any) -> None:
    assert compose(REQUEST, {"id": given})[0] == "00000000-0000-0000-0000-00000000000a"


def test_none_is_not_given_but_for_the_webhook_where_it_means_nobody() -> None:
    assert set(sent(idempotency_key=None, deadline=None, id=None)) == {"version", "request"}
    assert sent(webhook=None)["webhook"] is None


def test_text_of_any_alphabet_travels_in_ascii_and_arrives_as_it_was() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "日本 \U0001f600 \0 \ud800"}]}

    _, text = compose(request, {})

    assert text.isascii()
    assert json.loads(text)["request"] == request


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"priorty": 1}, TypeError, "'priorty' is not an option of a job; did you mean 'priority'?"),
        ({"temperature": 1}, TypeError, "put fields of the chat completion into request"),
        ({"version": 1}, TypeError, "'version' is not an option"),
        ({"id": "order-7"}, ValueError, "id is 'order-7'; give a UUID, such as "),
        ({"id": 7}, ValueError, "id is 7; give a UUID"),
        ({"deadline": datetime(2030, 1, 1)}, ValueError, "deadline is 2030-01-01 00:00:00, without a time zone"),
        ({"deadline": timedelta(hours=1)}, TypeError, "deadline is of type timedelta; give an aware datetime"),
        ({"not_before": 7}, TypeError, "not_before is of type int; give an aware datetime, such as datetime.now("),
        ({"timeout_s": math.inf}, ValueError, "timeout_s is inf, which JSON cannot hold"),
        ({"metadata": {"a": object()}}, ValueError, "metadata.a is of type object, which JSON cannot hold"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_with_the_remedy(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as raised:
        compose(REQUEST, options)

    assert says in str(raised.value)


class Message:
    """Looks like an object of a client library such as OpenAI's: it is no plain JSON."""

    def model_dump(self) -> dict[str, str]:
        return {}


def circle() -> dict[str, Any]:
    each: dict[str, Any] = {}
    each["messages"] = [each]
    return each


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        ("hello", TypeError, "request is of type str; give the body of the chat completion as a dict"),
        ({"temperature": math.nan}, ValueError, "request.temperature is nan, which JSON cannot hold"),
        ({"logit_bias": {"50256": -math.inf}}, ValueError, "request.logit_bias.50256 is -inf"),
        ({"messages": [{"content": b"x"}]}, ValueError, "request.messages[0].content is of type bytes"),
        ({"messages": [Message()]}, ValueError, "request.messages[0] is of type Message, which JSON cannot hold; give"),
        ({"messages": [Message()]}, ValueError, "model_dump(exclude_none=True)"),
        (circle(), ValueError, "request contains itself or nests too deeply for JSON"),
    ],
)
def test_a_request_that_is_no_json_is_refused_with_the_place(request_: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        compose(request_, {})

    assert says in str(raised.value)


def test_a_request_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(ValueError, match="contains itself or nests too deeply"):
        compose({"messages": deep}, {})


def test_integer_keys_become_texts_as_in_any_json() -> None:
    _, text = compose({"logit_bias": {50256: -100}}, {})

    assert json.loads(text)["request"] == {"logit_bias": {"50256": -100}}
