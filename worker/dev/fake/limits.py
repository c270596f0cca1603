"""Fake endpoint: the limits of a provider, read from JSON or TOML. All errors are reported at once."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

WINDOWS_IN_A_MINUTE = 6  # kind window10s
MOST = 1_000_000_000
LONGEST_S = 86_400.0
RATES = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
ALLOWANCES = (*RATES, "max_in_flight")
WORDS: dict[str, tuple[str, ...]] = {
    "per": ("key_and_model", "key", "model", "all"),
    "kind": ("reserve", "after", "sliding", "window", "window10s", "slots"),
    "provider": ("openai", "anthropic", "azure", "gemini", "new-api"),
    "headers": ("exact", "none", "minus_one", "stale", "per_day"),
    "retry_after": ("seconds", "ms", "none"),
}


class BadLimits(ValueError):
    """Limits that cannot be used; the message has one line for each error."""


@dataclass(frozen=True, slots=True)
class ProviderLimit:
    """One limit. `key` and `model` are patterns such as `gpt-4o*`; `per` says which requests share the counters."""

    key: str = "*"
    model: str = "*"
    per: Literal["key_and_model", "key", "model", "all"] = "key_and_model"
    kind: Literal["reserve", "after", "sliding", "window", "window10s", "slots"] = "reserve"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    burst_s: float = 60.0  # a bucket (reserve, after) holds so many seconds of its rate
    cached_input_counts: bool = True
    provider: Literal["openai", "anthropic", "azure", "gemini", "new-api"] = "openai"  # the form of body and headers
    headers: Literal["exact", "none", "minus_one", "stale", "per_day"] = "exact"
    retry_after: Literal["seconds", "ms", "none"] | float = "seconds"  # a number: always this wait

    def matches(self, key: str, model: str) -> bool:
        """Say whether the limit applies to a request with this Bearer key and model."""
        return fnmatchcase(key, self.key) and fnmatchcase(model, self.model)

    def described(self) -> dict[str, Any]:
        """Return the fields that were set, in the form that `parse_limits` reads."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


def load_limits(given: str) -> tuple[ProviderLimit, ...]:
    """Read limits from JSON text (it begins with `[` or `{`), or from a file in TOML or JSON. Raises BadLimits."""
    if given.lstrip().startswith(("[", "{")):
        return limits_of_json(given)
    try:
        text = Path(given).read_text(encoding="utf-8")
        return limits_of_json(text) if given.endswith(".json") else parse_limits(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadLimits(f"the limits file {given} is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadLimits(f"the limits file {given} cannot be read: {error}") from error


def limits_of_json(text: str | bytes) -> tuple[ProviderLimit, ...]:
    """Read limits from JSON. Raises BadLimits."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadLimits(f"the limits are not JSON: {error}") from error
    return parse_limits(value)


def parse_limits(value: object) -> tuple[ProviderLimit, ...]:
    """Make limits from a list of objects, an object with the list `limits`, or one object. Raises BadLimits."""
    if isinstance(value, dict):
        value = value["limits"] if value.keys() == {"limits"} else [value]
    if not isinstance(value, list | tuple):
        raise BadLimits(f'limits are {value!r}; write a list such as [{{"tokens_per_minute": 60000}}]')
    errors = [f"limits[{number}]: {error}" for number, given in enumerate(value) for error in _errors(given)]
    if errors:
        raise BadLimits("\n".join(errors))
    return tuple(given if isinstance(given, ProviderLimit) else ProviderLimit(**given) for given in value)


def _errors(given: object) -> Iterator[str]:
    given = given.described() if isinstance(given, ProviderLimit) else given
    if not isinstance(given, dict):
        yield f'{given!r} is no limit; write an object such as {{"tokens_per_minute": 60000}}'
        return
    wrong = [error for name, value in given.items() if (error := _error(name, value)) is not None]
    yield from wrong or _contradictions(given)


def _error(name: str, value: object) -> str | None:
    known = [field.name for field in fields(ProviderLimit)]
    if name not in known:
        close = get_close_matches(name, known, n=1)
        return f"{name} is no field of a limit; {f'did you mean {close[0]}?' if close else f'known are {known}'}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in ALLOWANCES:
        fits = isinstance(value, int) and is_number and 1 <= value <= MOST
        return None if fits else f"{name} is {value!r}; it must be a whole number from 1 to {MOST}, as in 60_000"
    if name == "burst_s" or (name == "retry_after" and is_number):
        fits = isinstance(value, int | float) and is_number and 0 <= value <= LONGEST_S
        return None if fits else f"{name} is {value!r}; it must be seconds from 0 to {LONGEST_S:.0f}"
    if name == "cached_input_counts":
        return None if isinstance(value, bool) else f"{name} is {value!r}; it must be true or false"
    if name in WORDS:
        words = ", ".join(WORDS[name]) + (" or a number of seconds" if name == "retry_after" else "")
        return None if value in WORDS[name] else f"{name} is {value!r}; it must be one of {words}"
    return None if isinstance(value, str) and value else f'{name} is {value!r}; it must be a pattern such as "gpt-4o*"'


def _contradictions(given: dict[str, Any]) -> Iterator[str]:
    rates = [name for name in RATES if name in given]
    kind = given.get("kind", "reserve")
    if not rates and "max_in_flight" not in given:
        yield f"it limits nothing; set one of {', '.join(ALLOWANCES)}"
    elif kind == "slots" and rates:
        yield f"kind is slots but {rates[0]} is set; slots count calls in flight alone, so set max_in_flight only"
    elif kind == "window10s" and any(given[name] < WINDOWS_IN_A_MINUTE for name in rates):
        yield "kind is window10s; a limit for 10 seconds is a sixth of the minute's, so set 6 or more a minute"
    if given.get("headers") == "per_day" and "requests_per_minute" not in given:
        yield "headers is per_day; this form shows requests a day, so set requests_per_minute"
