"""Every operator command for receivers, while real workers deliver, and the deliveries that follow."""

import json

import pytest

from tests.flow.operators import Operator
from tests.flow.receivers import ALLOWED
from tests.flow.system import System
from tests.pool.workers import until
from worker.dev.receiver import ReceiverAnswer, WebhookReceiver


@pytest.fixture
def operator(system: System) -> Operator:
    return Operator(system)


def test_a_test_arrives_signed_with_the_secret_that_add_has_shown(system: System, operator: Operator) -> None:
    with WebhookReceiver() as receiver:
        made = operator.json_of(f"webhooks add mine {receiver.url}?token=geheim --header X-Key:geheim")
        receiver.secrets = (made["secret"],)
        child = system.start(**ALLOWED)

        sent = operator.json_of("webhooks test mine --wait 60")

        [got] = receiver.received
        assert (sent["outcome"], sent["http_status"]) == ("delivered", 204)
        assert got.event is not None, got.fault
        assert (got.event["type"], got.event["data"]["receiver"]) == ("receiver.test", "mine")
        assert (got.path, got.headers["x-key"]) == ("/hooks?token=geheim", "geheim")
        assert "geheim" not in child.text()
        assert made["secret"] not in child.text()


def test_a_rotated_secret_signs_beside_the_old_one_and_alone_when_that_leaked(
    system: System, operator: Operator
) -> None:
    with WebhookReceiver() as receiver:
        first = operator.json_of(f"webhooks add mine {receiver.url}")["secret"]
        second = operator.json_of("webhooks rotate mine")["secret"]
        system.start(**ALLOWED)
        receiver.secrets = (first,)
        operator.types("webhooks test mine --wait 60")
        receiver.secrets = (second,)
        operator.types("webhooks test mine --wait 60")
        operator.json_of("webhooks rotate mine --overlap 0")
        operator.types("webhooks test mine --wait 60")

    assert [got.event is not None for got in receiver.received] == [True, True, False]


def test_events_held_while_a_receiver_was_disabled_are_sent_when_it_is_enabled(
    system: System, operator: Operator
) -> None:
    with WebhookReceiver() as receiver:
        operator.json_of(f"webhooks add mine {receiver.url} --default")
        system.start(**ALLOWED)
        operator.types("webhooks disable mine --reason maintenance")
        system.await_status(system.send())
        operator.await_statuses("held")
        assert "maintenance" in operator.json_of("webhooks deliveries")[0]["why"]
        assert receiver.received == []

        operator.types("webhooks enable mine")

        operator.await_statuses("delivered")


def test_refused_deliveries_are_recovered_with_the_same_id_and_bytes(system: System, operator: Operator) -> None:
    with WebhookReceiver(answer=lambda _: ReceiverAnswer(status=500)) as receiver:
        operator.json_of(f"webhooks add mine {receiver.url} --default --schedule 1")
        system.start(**ALLOWED)
        system.await_all([system.send(), system.send()])
        operator.await_statuses("failed", "failed")
        receiver.answer = lambda _: ReceiverAnswer()
        before = len(receiver.received)

        operator.json_of("webhooks recover mine --since 1h --rate 100")

        operator.await_statuses("delivered", "delivered")
        until(lambda: operator.json_of("webhooks recoveries")[0]["status"] == "done", what="the recovery's end")
        again = receiver.received[before:]
        told_before = {got.headers["webhook-id"]: got.body for got in receiver.received[:before]}
        assert {got.headers["webhook-id"]: got.body for got in again} == told_before
        assert len(again) == 2


def test_a_worker_whose_keys_open_nothing_does_not_start(system: System, operator: Operator) -> None:
    operator.json_of("webhooks add mine http://127.0.0.1:9/hooks")

    with pytest.raises(AssertionError, match="no key of AFTERWORD_SECRET_KEYS"):
        system.start(**{**ALLOWED, "secret_keys": operator.types("secrets new-key").stdout.strip()})
    with pytest.raises(AssertionError, match="AFTERWORD_SECRET_KEYS is not set"):
        # Without a key, no job may name a URL either.
        system.start(webhook_allow_http="true", webhook_allow_cidrs="127.0.0.0/8")


def test_events_for_a_receiver_before_its_registration_are_sent_as_it_wants(system: System, operator: Operator) -> None:
    with WebhookReceiver() as receiver:
        system.start(**ALLOWED)
        ids = [system.send(webhook={"to": "later"}, ordering_key="k") for _ in range(3)]
        system.await_all(ids)
        operator.await_statuses("held", "held", "held")

        made = operator.json_of(f"webhooks add later {receiver.url} --payload thin --ordering per_key")
        receiver.secrets = (made["secret"],)

        operator.await_statuses("delivered", "delivered", "delivered")
        bodies = [json.loads(got.body) for got in receiver.received]
        assert [one["sequence"] for one in bodies] == [1, 2, 3]
        assert [one["data"]["cursor"] for one in bodies] == sorted(one["data"]["cursor"] for one in bodies)
        assert {one["data"]["result_omitted"] for one in bodies} == {True}
