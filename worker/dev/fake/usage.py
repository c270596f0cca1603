"""Fake endpoint: the usage object, in the shapes of different providers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counts:
    """The tokens of an answer; `completion` includes `reasoning`, `prompt` includes `cached`."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0
    audio: int = 0


def _plain(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _openai(counts: Counts) -> dict[str, Any]:
    return _plain(counts) | {
        "prompt_tokens_details": {"cached_tokens": counts.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning, "audio_tokens": counts.audio,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def _document(counts: Counts) -> dict[str, Any]:
    text = counts.completion - counts.reasoning - counts.audio
    return _plain(counts) | {
        "prompt_tokens_details": {
            "cached_tokens": counts.cached, "text_tokens": counts.prompt, "audio_tokens": 0, "image_tokens": 0,
        },
        "completion_tokens_details": {
            "text_tokens": text, "audio_tokens": counts.audio, "reasoning_tokens": counts.reasoning,
        },
    }  # fmt: skip


def _deepseek(counts: Counts) -> dict[str, Any]:
    hit = {"prompt_cache_hit_tokens": counts.cached, "prompt_cache_miss_tokens": counts.prompt - counts.cached}
    return _plain(counts) | hit | {"completion_tokens_details": {"reasoning_tokens": counts.reasoning}}


def _xai(counts: Counts) -> dict[str, Any]:
    # completion_tokens is without the reasoning tokens, but total_tokens includes them.
    visible = counts.completion - counts.reasoning
    return _plain(counts) | {
        "completion_tokens": visible,
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


def _anthropic(counts: Counts) -> dict[str, Any]:
    # input_tokens is without the cached tokens.
    return {
        "input_tokens": counts.prompt - counts.cached,
        "output_tokens": counts.completion,
        "cache_read_input_tokens": counts.cached,
        "cache_creation_input_tokens": 0,
    }


def _zero(_: Counts) -> dict[str, Any]:
    return _plain(Counts(0, 0))


# Shapes by name: the place of the object ("top", "choice", "x_groq"), and the object.
SHAPES: Mapping[str, tuple[str, Callable[[Counts], dict[str, Any]]]] = {
    "plain": ("top", _plain),
    "openai": ("top", _openai),
    "document": ("top", _document),
    "deepseek": ("top", _deepseek),
    "xai": ("top", _xai),
    "anthropic": ("top", _anthropic),
    "openrouter": (
        "top",
        lambda counts: _openai(counts) | {"cost": round(1e-6 * (counts.prompt + counts.completion), 6)},
    ),
    "new-api": ("top", lambda counts: _document(counts) | {"input_tokens": 0, "output_tokens": 0}),
    "zero": ("top", _zero),
    "moonshot": ("choice", lambda counts: _plain(counts) | {"cached_tokens": counts.cached}),
    "groq": ("x_groq", _plain),
}


def usage_in_shape(shape: str | Mapping[str, Any], counts: Counts) -> tuple[str, dict[str, Any] | None]:
    """Return the place of the usage ("top", "choice", "x_groq" or "none") and the object.

    Raises KeyError for an unknown name of a shape.
    """
    if not isinstance(shape, str):
        return "top", dict(shape)
    if shape == "none":
        return "none", None
    place, make = SHAPES[shape]
    return place, make(counts)
