"""A receiver's subscription: the events it gets, how much of the result, and in which format."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from worker.core.faults import Fault, describe_value
from worker.webhooks.core.event import EventType, Payload
from worker.webhooks.core.payload import Profile

EVERY_JOB: Final = "job.*"

NAMES: Final = (EVERY_JOB, *(kind.value for kind in EventType if kind is not EventType.test))
"""The names allowed in `events`."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A receiver's events, their payload and their format."""

    events: tuple[str, ...] = (EVERY_JOB,)
    payload: Payload = Payload.auto
    profile: Profile = Profile.afterword


def read_subscription(
    *, events: object = None, payload: object = None, profile: object = None
) -> Subscription | tuple[Fault, ...]:
    """Read the values of a registration (None: not given), or return all faults."""
    faults = (
        *_event_faults(events),
        *_choice_faults("payload", payload, Payload),
        *_choice_faults("profile", profile, Profile),
    )
    if not faults:
        faults = tuple(_combination_faults(payload, profile))
    if faults:
        return faults
    chosen = Profile(_value_or(profile, Profile.afterword))
    default = Payload.thin if chosen is Profile.openai else Payload.auto
    names = tuple(dict.fromkeys(events)) if isinstance(events, list | tuple) else (EVERY_JOB,)
    return Subscription(names, Payload(_value_or(payload, default)), chosen)


def wants(names: Iterable[str], event_type: EventType) -> bool:
    """Say whether a receiver registered for `names` gets an event. Never true for a test: it names its receiver."""
    return any(name == event_type or (name == EVERY_JOB and event_type.startswith("job.")) for name in names)


def _event_faults(value: object) -> Iterator[Fault]:
    if value is None:
        return
    if not isinstance(value, list | tuple) or not value:
        yield Fault("events", f'is {describe_value(value)}; send a list such as ["{EVERY_JOB}"] or ["job.failed"]')
        return
    for place, name in enumerate(value):
        if name not in NAMES:
            yield Fault(f"events[{place}]", f"is {describe_value(name)}; {_remedy(name)}")


def _remedy(name: object) -> str:
    if name == EventType.test:
        return "a test is sent only on request; leave it out"
    near = get_close_matches(name[:64], NAMES, n=1) if isinstance(name, str) else []
    return f'did you mean "{near[0]}"?' if near else f"the events are {', '.join(NAMES)}"


def _choice_faults(path: str, value: Any, words: type[Payload] | type[Profile]) -> Iterator[Fault]:
    if value is not None and value not in list(words):
        yield Fault(path, f"is {describe_value(value)}; send {' or '.join(words)}")


def _combination_faults(payload: object, profile: object) -> Iterator[Fault]:
    if profile == Profile.openai and payload not in (None, Payload.thin):
        yield Fault(
            "payload", f"is {describe_value(payload)}, but events of the profile openai have no result; leave it out"
        )


def _value_or(value: Any, default: str) -> str:
    return default if value is None else str(value)
