"""Usage as providers report it, normalised to our columns without loss or invention. Read when an attempt is recorded.

What was not reported is None, never 0; what looks wrong is kept and flagged, never corrected.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from json import JSONDecoder
from typing import Any

_SOURCES: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
    "total_tokens": ("total_tokens",),
    "cached_tokens": (
        "prompt_tokens_details.cached_tokens",
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "cache_read_input_tokens",
        "input_tokens_details.cached_tokens",
    ),
    "cache_write_tokens": (
        "prompt_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cached_creation_tokens",
        "cache_creation_input_tokens",
    ),
    "prompt_text_tokens": ("prompt_tokens_details.text_tokens",),
    "prompt_audio_tokens": ("prompt_tokens_details.audio_tokens",),
    "prompt_image_tokens": ("prompt_tokens_details.image_tokens",),
    "completion_text_tokens": ("completion_tokens_details.text_tokens",),
    "completion_audio_tokens": ("completion_tokens_details.audio_tokens",),
    "completion_image_tokens": ("completion_tokens_details.image_tokens",),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens",
        "reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
    ),
    "accepted_prediction_tokens": ("completion_tokens_details.accepted_prediction_tokens",),
    "rejected_prediction_tokens": ("completion_tokens_details.rejected_prediction_tokens",),
}
"""For each column the places it is taken from: the first that holds a number."""

TOKENS: tuple[str, ...] = tuple(_SOURCES)
"""The token columns, in their order in the views."""

# Gateways that translate between vocabularies leave a 0 in the one they did not fill.
_YIELDS_WHEN_ZERO = ("prompt_tokens", "completion_tokens")
_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Usage:
    """The columns of one usage object. `tokens` has all of TOKENS; `source` is "top", "choice", "x_groq" or "none"."""

    tokens: Mapping[str, int | None]
    reported_cost: Decimal | None
    flags: tuple[str, ...]
    source: str


def normalise(
    usage: bytes | None,
    *,
    source: str | None = None,
    flags: Iterable[str] = (),
    has_text: bool,
    limit: int | None = None,
) -> Usage:
    """Read the exact text of a usage object into columns; never raises.

    `source` and `flags` come with the answer; `has_text` says that something was generated, so that a report of nothing
    but zeros counts as none; `limit` is the most tokens the request allowed (its maximum times n), if it said so.
    """
    if usage is None:
        return Usage(dict.fromkeys(TOKENS), None, (*flags, "missing"), source or "none")
    reader = _Reader(usage)
    tokens = {column: reader.tokens(column) for column in TOKENS}
    cost = reader.cost()
    found = [*flags, *reader.flags]
    if all(count is None for count in tokens.values()) and not reader.flags:
        found.append("missing")
    elif not any(tokens.values()) and not reader.flags:
        found.append("all_zero")
        if has_text:
            tokens = dict.fromkeys(TOKENS)
            cost = cost or None
    found += _doubts(tokens, limit)
    if reader.hit_and_miss_differ(tokens["prompt_tokens"]):
        found.append("ds_hit_miss")
    return Usage(tokens, cost, tuple(dict.fromkeys(found)), source or "none")


class _Reader:
    """Looks numbers up in a usage object and remembers what was no count."""

    def __init__(self, usage: bytes) -> None:
        self.flags: list[str] = []
        self._object: Mapping[str, Any] = {}
        try:
            value = _decode(usage.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            self._object = value
        else:
            self.flags.append("bad_value:usage")

    def tokens(self, column: str) -> int | None:
        """Return the first number among the places of a column."""
        counts = [count for path in _SOURCES[column] if (count := self._count(path)) is not None]
        if column in _YIELDS_WHEN_ZERO:
            return next(filter(None, counts), counts[0] if counts else None)
        return counts[0] if counts else None

    def cost(self) -> Decimal | None:
        """Return `cost` as OpenRouter reports it, exactly; the currency is the provider's."""
        value = self._at("cost")
        if value is None:
            return None
        cost = _decimal(value)
        # Within what a numeric column can hold and a price can be.
        if cost is None or cost < 0 or len(cost.as_tuple().digits) > 50 or not -30 < cost.adjusted() < 15:
            self._flag("cost")
            return None
        return cost

    def hit_and_miss_differ(self, prompt: int | None) -> bool:
        """Compare DeepSeek's two halves of the prompt with the whole."""
        hit, miss = self._count("prompt_cache_hit_tokens"), self._count("prompt_cache_miss_tokens")
        return None not in (hit, miss, prompt) and (hit or 0) + (miss or 0) != prompt

    def _count(self, path: str) -> int | None:
        value = self._at(path)
        if value is None or (type(value) is int and 0 <= value <= _BIGINT):
            return value
        number = _decimal(value)
        if number is None or not 0 <= number <= _BIGINT or number != number.to_integral_value():
            self._flag(path)
            return None
        return int(number)

    def _at(self, path: str) -> Any:
        if "." not in path:
            return self._object.get(path)
        outer, inner = path.split(".")
        details = self._object.get(outer)
        if isinstance(details, dict):
            return details.get(inner)
        if details is not None:
            self._flag(outer)
        return None

    def _flag(self, path: str) -> None:
        if f"bad_value:{path}" not in self.flags:
            self.flags.append(f"bad_value:{path}")


def _doubts(tokens: Mapping[str, int | None], limit: int | None) -> Iterable[str]:
    """Name what does not add up. By OpenAI's definition reasoning is part of completion, and cached of prompt."""
    prompt, completion, total = (tokens[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    reasoning, cached = tokens["reasoning_tokens"], tokens["cached_tokens"]
    if prompt is not None and completion is not None and total is not None:
        if total != prompt + completion:
            yield "total_mismatch"
        if reasoning and total == prompt + completion + reasoning:
            # xAI and Gemini: what is billed as output is then completion + reasoning.
            yield "reasoning_outside_completion"
    if reasoning is not None and completion is not None and reasoning > completion:
        yield "reasoning_gt_completion"
    if cached is not None and prompt is not None and cached > prompt:
        yield "cached_gt_prompt"
    if _sum_differs(prompt, [tokens[f"prompt_{kind}_tokens"] for kind in ("text", "audio", "image")]):
        yield "details_sum_prompt"
    if _sum_differs(completion, [tokens["completion_text_tokens"], tokens["completion_audio_tokens"], reasoning]):
        yield "details_sum_completion"
    if limit is not None and completion is not None and completion > limit:
        yield "completion_gt_limit"


def _sum_differs(whole: int | None, parts: list[int | None]) -> bool:
    """Compare only where the text part is reported: OpenAI reports the other parts alone."""
    counted = sum(part or 0 for part in parts)
    return whole is not None and parts[0] is not None and counted > 0 and counted != whole


def _decimal(value: object) -> Decimal | None:
    """Return a finite number, or digits in a string, as a Decimal; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def _exact(digits: str) -> Decimal | str:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return digits


def _short(digits: str) -> int | Decimal | str:
    # Python refuses to read an integer of more than 4,300 digits; a Decimal of them is read, and found too large.
    return int(digits) if len(digits) < 20 else _exact(digits)


_decode = JSONDecoder(parse_float=_exact, parse_int=_short, parse_constant=str).decode
