"""Checks the values of a receiver's registration and reports all faults at once. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.core.faults import Fault, describe_value
from worker.webhooks.core.retry_schedule import schedule_fault
from worker.webhooks.core.subscription import Subscription, read_subscription

TIMEOUT_S: Final = 15.0
LONGEST_TIMEOUT_S: Final = 30.0
IN_FLIGHT: Final = 10
MOST_IN_FLIGHT: Final = 1000
RATES: Final = (0.01, 10_000.0)
ORDERINGS: Final = ("none", "per_key")
ON_EXHAUSTED: Final = ("skip", "block")
LONGEST_TENANT: Final = 255

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
# Names of receivers that are made for jobs' URLs. If a tenant registered one, it would get that URL's webhooks.
_RESERVED = re.compile(r"url-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Registration:
    """The settings of a receiver, without its sealed values. `schedule` None: the default schedule."""

    name: str
    tenant: str = "default"
    is_default: bool = False
    subscription: Subscription = field(default_factory=Subscription)
    timeout_s: float = TIMEOUT_S
    schedule: tuple[float, ...] | None = None
    rate_per_s: float | None = None
    in_flight: int = IN_FLIGHT
    ordering: str = "none"
    on_exhausted: str = "skip"


def name_fault(name: object) -> str | None:
    """Return the fault of a new receiver's name, as the end of a sentence (`is "A"; use …`), or None."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return (
            f"is {describe_value(name)}; use up to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"
        )
    if _RESERVED.fullmatch(name):
        return f"is {describe_value(name)}; such names are reserved for the URLs of jobs, choose another"
    return None


def read_registration(name: str, values: Mapping[str, Any], *, old: bool = False) -> Registration | tuple[Fault, ...]:
    """Read a registration from values by field name, or return all faults.

    `events`, `payload` and `profile` make the subscription. An absent value or None means the default. `old`: the
    receiver exists already, so its name is not checked.
    """
    given = {key: value for key, value in values.items() if value is not None}
    subscription_values = {key: given.pop(key) for key in ("events", "payload", "profile") if key in given}
    subscription = read_subscription(**subscription_values)
    faults = [*([] if old else _name_faults(name)), *_number_faults(given), *_text_faults(given)]
    if not isinstance(subscription, Subscription):
        return (*faults, *subscription)
    if faults:
        return tuple(faults)
    if "schedule" in given:
        given["schedule"] = tuple(float(step) for step in given["schedule"])
    return Registration(name, subscription=subscription, **given)


def _name_faults(name: str) -> Iterator[Fault]:
    if fault := name_fault(name):
        yield Fault("name", fault)


def _number_faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    low, high = RATES
    yield from _number_fault(given, "timeout_s", 1.0, LONGEST_TIMEOUT_S, "seconds")
    yield from _number_fault(given, "rate_per_s", low, high, "deliveries a second")
    yield from _number_fault(given, "in_flight", 1, MOST_IN_FLIGHT, "deliveries at a time", whole=True)
    if "schedule" in given and (fault := schedule_fault(given["schedule"])):
        yield Fault("schedule", f"cannot be used: {fault[0].lower()}{fault[1:]}")


def _number_fault(
    given: Mapping[str, Any], path: str, low: float, high: float, unit: str, *, whole: bool = False
) -> Iterator[Fault]:
    value = given.get(path, low)
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not low <= value <= high:
        yield Fault(
            path, f"is {describe_value(value)}; {unit} are {'a whole number ' if whole else ''}from {low:g} to {high:g}"
        )


def _text_faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    for path, words in (("ordering", ORDERINGS), ("on_exhausted", ON_EXHAUSTED)):
        if given.get(path, words[0]) not in words:
            yield Fault(path, f"is {describe_value(given[path])}; send {' or '.join(words)}")
    tenant = given.get("tenant", "default")
    if not isinstance(tenant, str) or not 1 <= len(tenant) <= LONGEST_TENANT or not tenant.isprintable():
        yield Fault("tenant", f"is {describe_value(tenant)}; send 1 to {LONGEST_TENANT} printable characters")
