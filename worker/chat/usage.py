"""Normalises the usage that providers report to our token columns. It runs when an attempt is recorded.

A value that was not reported is None, never 0. A value that looks wrong is kept and flagged, never corrected.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from json import JSONDecoder
from typing import Any

# Names of the two objects with details: the document's name first, then those of Mistral and Anthropic.
_PROMPT_DETAILS = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details", "input_token_details")
_COMPLETION_DETAILS = (
    "completion_tokens_details", "completion_token_details", "output_tokens_details", "output_token_details",
)  # fmt: skip


def _in(details: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(f"{outer}.{name}" for name in names for outer in details)


_SOURCES: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": (
        "prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount", "prompt_token_count",
        "input_token_count", "prompt_eval_count",
    ),
    "completion_tokens": (
        "completion_tokens", "output_tokens", "completionTokens", "outputTokens", "candidatesTokenCount",
        "candidates_token_count", "output_token_count", "eval_count", "generated_tokens",
    ),
    "total_tokens": ("total_tokens", "totalTokens", "totalTokenCount", "total_token_count"),
    "cached_tokens": (
        *_in(_PROMPT_DETAILS, "cached_tokens", "cache_read_tokens", "cache_read_input_tokens"),
        "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens",
        "cache_read_tokens", "cached_prompt_tokens", "cached_input_tokens", "cachedContentTokenCount",
        "cached_content_token_count", "cacheReadInputTokens", "cachedInputTokens",
    ),
    "cache_write_tokens": (
        *_in(
            _PROMPT_DETAILS, "cache_write_tokens", "cached_creation_tokens", "cache_creation_input_tokens",
            "cache_creation_tokens",
        ),
        "cache_creation_input_tokens", "cache_write_tokens", "cache_creation_tokens", "cache_write_input_tokens",
        "cacheWriteInputTokens", "cacheCreationInputTokens",
    ),
    "prompt_text_tokens": _in(_PROMPT_DETAILS, "text_tokens"),
    "prompt_audio_tokens": _in(_PROMPT_DETAILS, "audio_tokens"),
    "prompt_image_tokens": _in(_PROMPT_DETAILS, "image_tokens"),
    "completion_text_tokens": _in(_COMPLETION_DETAILS, "text_tokens"),
    "completion_audio_tokens": _in(_COMPLETION_DETAILS, "audio_tokens"),
    "completion_image_tokens": _in(_COMPLETION_DETAILS, "image_tokens"),
    "reasoning_tokens": (
        *_in(_COMPLETION_DETAILS, "reasoning_tokens", "thinking_tokens"),
        "reasoning_tokens", "thinking_tokens", "thoughtsTokenCount", "thoughts_token_count", "reasoningTokens",
    ),
    "accepted_prediction_tokens": _in(_COMPLETION_DETAILS, "accepted_prediction_tokens"),
    "rejected_prediction_tokens": _in(_COMPLETION_DETAILS, "rejected_prediction_tokens"),
}  # fmt: skip
"""The members to read for each column: the first with a number above 0 counts, else the first with a 0.

Gateways that translate usage between two APIs leave a 0 in the members they did not fill.
"""

TOKENS: tuple[str, ...] = tuple(_SOURCES)
"""The token columns, in their order in the views."""

# Members with a price, and the value of one unit: OpenRouter, DeepInfra and gateways; xAI counts ticks of 1e-10 USD.
_COSTS: tuple[tuple[str, Decimal], ...] = (
    ("cost", Decimal(1)),
    ("cost.total_cost", Decimal(1)),
    ("cost.total", Decimal(1)),
    ("total_cost", Decimal(1)),
    ("total_cost_usd", Decimal(1)),
    ("cost_usd", Decimal(1)),
    ("cost_usd_total", Decimal(1)),
    ("estimated_cost", Decimal(1)),
    ("cost_in_usd_ticks", Decimal("1e-10")),
)
_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Usage:
    """The columns of one usage object.

    `tokens` has a key for each of TOKENS: `{"prompt_tokens": 12, …, "reasoning_tokens": None}`. `source` is "top",
    "choice", "x_groq" or "none".
    """

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
    """Return the columns of a usage object, given as its exact text. Never raises.

    `source` and `flags` are those of the answer. `has_text`: something was generated, so a report of only zeros counts
    as no report. `limit` is the maximum number of tokens of the request (its maximum times `n`), if it has one.
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
    found += _inconsistencies(tokens, limit)
    if reader.hit_and_miss_differ(tokens["prompt_tokens"]):
        found.append("ds_hit_miss")
    return Usage(tokens, cost, tuple(dict.fromkeys(found)), source or "none")


class _Reader:
    """Looks up numbers in a usage object and collects a flag for each invalid value."""

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
        """Return the first number above 0 among the members for a column, else 0 if one is 0, else None."""
        counts = [count for path in _SOURCES[column] if (count := self._count(path)) is not None]
        return next(filter(None, counts), counts[0] if counts else None)

    def cost(self) -> Decimal | None:
        """Return the exact price that the provider reports, in the provider's currency; None if there is none."""
        costs = [cost * unit for path, unit in _COSTS if (cost := self._price(path)) is not None]
        return next(filter(None, costs), costs[0] if costs else None)

    def _price(self, path: str) -> Decimal | None:
        value = self._at(path) if "." not in path or self._is_object("cost") else None
        if value is None or (path == "cost" and self._is_object("cost")):
            return None  # Perplexity sends an object here: the path "cost.total_cost" reads its total
        cost = _decimal(value)
        # The limits of a numeric column and of a plausible price.
        if cost is None or cost < 0 or len(cost.as_tuple().digits) > 50 or not -30 < cost.adjusted() < 15:
            self._flag(path)
            return None
        return cost

    def _is_object(self, name: str) -> bool:
        return isinstance(self._object.get(name), dict)

    def hit_and_miss_differ(self, prompt: int | None) -> bool:
        """Say whether DeepSeek's cache hits and misses do not add up to the prompt's tokens."""
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


def _inconsistencies(tokens: Mapping[str, int | None], limit: int | None) -> Iterable[str]:
    """Yield a flag for each inconsistency. By OpenAI's definition completion includes reasoning, prompt cached."""
    prompt, completion, total = (tokens[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    reasoning, cached = tokens["reasoning_tokens"], tokens["cached_tokens"]
    if prompt is not None and completion is not None and total is not None:
        if total != prompt + completion:
            yield "total_mismatch"
        if reasoning and total == prompt + completion + reasoning:
            # xAI and Gemini: the billed output is then completion + reasoning.
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
    """Say whether the parts do not add up to the whole. False without a text part: OpenAI leaves it out."""
    counted = sum(part or 0 for part in parts)
    return whole is not None and parts[0] is not None and counted > 0 and counted != whole


def _decimal(value: object) -> Decimal | None:
    """Return a number, or the digits in a string, as a Decimal; None for anything else."""
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
    # int() refuses more than 4,300 digits; a Decimal can hold them, and is then flagged as too large.
    return int(digits) if len(digits) < 20 else _exact(digits)


_decode = JSONDecoder(parse_float=_exact, parse_int=_short, parse_constant=str).decode
