"""The rules for registering a receiver."""

from typing import Any

import pytest

from worker.core.faults import Fault
from worker.webhooks.core.event import Payload
from worker.webhooks.core.payload import Profile
from worker.webhooks.core.registration import Registration, read_registration
from worker.webhooks.core.subscription import Subscription


def faults(name: str = "billing", *, old: bool = False, **values: Any) -> list[str]:
    read = read_registration(name, values, old=old)
    return [] if isinstance(read, Registration) else [one.path for one in read if isinstance(one, Fault)]


def test_a_receiver_without_options_has_the_defaults() -> None:
    assert read_registration("billing", {}) == Registration("billing")
    assert read_registration("billing", {"schedule": None, "tenant": None}) == Registration("billing")


def test_all_values_are_read() -> None:
    read = read_registration(
        "a.b-c_1",
        {"tenant": "acme", "events": ["job.failed"], "profile": "openai", "schedule": [5, 30], "rate_per_s": 0.5},
    )
    assert read == Registration(
        "a.b-c_1",
        tenant="acme",
        subscription=Subscription(("job.failed",), Payload.thin, Profile.openai),
        schedule=(5.0, 30.0),
        rate_per_s=0.5,
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("timeout_s", 0.5), ("timeout_s", 31), ("timeout_s", True), ("timeout_s", "9"), ("rate_per_s", 0),
        ("rate_per_s", float("nan")), ("in_flight", 0), ("in_flight", 1001), ("in_flight", 1.5), ("schedule", []),
        ("schedule", [0]), ("schedule", [1] * 21), ("ordering", "fifo"), ("on_exhausted", "stop"), ("tenant", ""),
        ("tenant", "x" * 256), ("tenant", "a\0"), ("payload", "fat"), ("profile", "other"), ("events", []),
    ],
)  # fmt: skip
def test_a_value_out_of_its_rule_is_named(path: str, value: Any) -> None:
    assert faults(**{path: value}) == [path]


@pytest.mark.parametrize("name", ["", "Billing", "-a", "a b", "x" * 65, "a/b", "url-" + "0" * 24])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    assert faults(name) == ["name"]


def test_a_receiver_that_a_jobs_address_made_may_be_changed() -> None:
    assert faults("url-" + "0" * 24, old=True) == []


def test_all_faults_are_reported_together() -> None:
    assert faults("B", in_flight=0, events=["x"], ordering="y") == ["name", "in_flight", "ordering", "events[0]"]
