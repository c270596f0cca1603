"""The events that a receiver may subscribe to."""

import pytest

from worker.core.faults import Fault
from worker.webhooks.core.event import EventType, Payload
from worker.webhooks.core.payload import Profile
from worker.webhooks.core.subscription import NAMES, Subscription, read_subscription, wants

JOB_EVENTS = set(EventType) - {EventType.test}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["job.*"], JOB_EVENTS),
        (["job.failed"], {EventType.failed}),
        (["job.failed", "job.expired"], {EventType.failed, EventType.expired}),
        (["job.failed", "job.*"], JOB_EVENTS),
        ([], set()),
    ],
)
def test_a_receiver_gets_the_events_it_names(names, expected):
    assert {kind for kind in EventType if wants(names, kind)} == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Subscription(("job.*",), Payload.auto, Profile.afterword)),
        ({"events": list(NAMES)}, Subscription(NAMES)),
        ({"events": ["job.failed", "job.failed"]}, Subscription(("job.failed",))),
        ({"payload": "full"}, Subscription(payload=Payload.full)),
        ({"profile": "openai"}, Subscription(payload=Payload.thin, profile=Profile.openai)),
        ({"profile": "openai", "payload": "thin"}, Subscription(payload=Payload.thin, profile=Profile.openai)),
    ],
)
def test_good_values_are_read(values, expected):
    assert read_subscription(**values) == expected


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"events": "job.failed"}, "events", 'is "job.failed"; send a list such as ["job.*"] or ["job.failed"]'),
        ({"events": []}, "events", 'is an array of 0 elements; send a list such as ["job.*"] or ["job.failed"]'),
        ({"events": {}}, "events", 'is an object of 0 members; send a list such as ["job.*"] or ["job.failed"]'),
        ({"events": ["job.*", "job.complete"]}, "events[1]", 'is "job.complete"; did you mean "job.completed"?'),
        ({"events": ["job.Failed"]}, "events[0]", 'is "job.Failed"; did you mean "job.failed"?'),
        ({"events": [7]}, "events[0]", f"is 7; the events are {', '.join(NAMES)}"),
        ({"events": [None]}, "events[0]", f"is null; the events are {', '.join(NAMES)}"),
        ({"events": [["job.*"]]}, "events[0]", f"is an array of 1 elements; the events are {', '.join(NAMES)}"),
        (
            {"events": ["receiver.test"]},
            "events[0]",
            'is "receiver.test"; a test is sent only on request; leave it out',
        ),
        ({"payload": "fat"}, "payload", 'is "fat"; send thin or full or auto'),
        ({"payload": ["thin"]}, "payload", "is an array of 1 elements; send thin or full or auto"),
        ({"payload": True}, "payload", "is true; send thin or full or auto"),
        ({"profile": "OpenAI"}, "profile", 'is "OpenAI"; send afterword or openai'),
        (
            {"profile": "openai", "payload": "full"},
            "payload",
            'is "full", but events of the profile openai have no result; leave it out',
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(values, path, message):
    assert read_subscription(**values) == (Fault(path, message),)


def test_all_faults_are_reported_at_once():
    faults = read_subscription(events=["x", "y"], payload=1, profile=2)
    assert [fault.path for fault in faults] == ["events[0]", "events[1]", "payload", "profile"]
