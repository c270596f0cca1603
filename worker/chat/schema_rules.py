"""Building blocks of request validation. A Rule takes a path and a value and yields the faults of the value."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from worker.core.faults import Fault, describe_value, member_path

Rule = Callable[[str, Any], Iterator[Fault]]


def text(*, longest: int | None = None, empty: bool = False) -> Rule:
    """Return the rule for a string of at most `longest` characters; `empty`: the empty string is allowed."""
    wanted = "a string" if empty else "a string that is not empty"
    if longest is not None:
        wanted += f" of at most {longest} characters"

    def rule(path: str, value: Any) -> Iterator[Fault]:
        if type(value) is not str or not (value or empty) or (longest is not None and len(value) > longest):
            size = f", {len(value)} characters long" if type(value) is str and len(value) > (longest or 0) > 0 else ""
            yield Fault(path, f"is {describe_value(value)}{size}; send {wanted}")

    return rule


def boolean(path: str, value: Any) -> Iterator[Fault]:
    """Yield a fault unless the value is true or false."""
    if type(value) is not bool:
        yield Fault(path, f"is {describe_value(value)}; send true or false")


def number(low: float = -math.inf, high: float = math.inf, *, authority: str = "") -> Rule:
    """Return the rule for a number from `low` to `high`, both included. `authority` names the source of the limits.

    The values true and false are not numbers.
    """

    def rule(path: str, value: Any) -> Iterator[Fault]:
        if type(value) not in (int, float):
            yield Fault(path, f"is {describe_value(value)}; send a number")
        elif not low <= value <= high:
            yield Fault(path, f"is {describe_value(value)}; {_allowed(low, high, authority)}")

    return rule


def integer(low: float = -math.inf, high: float = math.inf, *, authority: str = "") -> Rule:
    """Return the rule for an integer from `low` to `high`. 2.0 is a fault, because gateways written in Go refuse it."""

    def rule(path: str, value: Any) -> Iterator[Fault]:
        if type(value) is not int:
            yield Fault(path, f"is {describe_value(value)}; send an integer, written without a fraction")
        elif not low <= value <= high:
            yield Fault(path, f"is {describe_value(value)}; {_allowed(low, high, authority)}")

    return rule


def json_object(path: str, value: Any) -> Iterator[Fault]:
    """Yield a fault unless the value is a JSON object."""
    if type(value) is not dict:
        yield Fault(path, f"is {describe_value(value)}; send an object")


def array(each: Rule) -> Rule:
    """Return the rule for an array; `each` is the rule for its elements."""

    def rule(path: str, value: Any) -> Iterator[Fault]:
        if type(value) is not list:
            yield Fault(path, f"is {describe_value(value)}; send an array")
            return
        for position, element in enumerate(value):
            yield from each(f"{path}[{position}]", element)

    return rule


def required(path: str, value: dict[str, Any], name: str, rule: Rule) -> Iterator[Fault]:
    """Apply a rule to the member `name` of an object; a missing or null member is a fault."""
    inner = value.get(name)
    if inner is None:
        yield Fault(member_path(path, name), f"is {'null' if name in value else 'missing'}; it is required")
    else:
        yield from rule(member_path(path, name), inner)


def optional(path: str, value: dict[str, Any], name: str, rule: Rule) -> Iterator[Fault]:
    """Apply a rule to the member `name` of an object, unless the member is missing or null."""
    inner = value.get(name)
    if inner is not None:
        yield from rule(member_path(path, name), inner)


def _allowed(low: float, high: float, authority: str) -> str:
    subject = f"{authority} allows" if authority else "the allowed range is"
    if high == math.inf:
        return f"{subject} {low} or more"
    return f"{subject} {low} to {high}"
