"""Holds a chat request to the endpoint's document before it is accepted, and makes the body that goes on the wire.

The document is `POST /v1/chat/completions` as `api_contracts/openapi.yaml` transcribes it. Where it is silent, OpenAI's
schema speaks; what neither describes passes. Nothing is renamed, defaulted or repaired.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from worker.chat.request_fields import RULES
from worker.chat.tools import choice_needs_tools
from worker.core.endpoint import Validation
from worker.core.exact_json import members, with_member
from worker.core.faults import FAULT_LIMIT, Fault

_REQUIRED = {
    "model": 'name the model, such as "DeepSeek-V3.2"',
    "messages": 'send at least one message, such as {"role": "user", "content": "hello"}',
}

# The fields that ask something of other fields.
_DEPENDENT = frozenset({"stream_options", "tool_choice", "modalities", "audio", "max_completion_tokens"})


def validate(request: Mapping[str, Any], mode: Validation = "document") -> list[Fault]:
    """Find all faults of a request, at most FAULT_LIMIT; an empty list lets it pass.

    `mode` is the endpoint's setting `validation`: "document" (its types and ranges, and OpenAI's interplay), "openai"
    (OpenAI's ranges, words and forms of names too) or "shape" (model, messages and types only). An optional
    field that is null counts as absent. A tool_choice must name a tool that is there: the one rule that
    chat_request.schema.json cannot express.
    """
    return list(islice(_faults(request, mode), FAULT_LIMIT))


def wire_body(request: str, *, streamed: bool, asks_usage: bool = True) -> tuple[bytes, bool]:
    """Make the body to send from a request's text, and say whether `include_usage` was added to it.

    A streamed request asks for its usage unless the caller said otherwise (without it a gateway keeps the usage to
    itself), and says `"stream": true` if the caller did not; every other character goes out as it came. `asks_usage`
    False: the endpoint refuses requests that ask.
    """
    if not streamed:
        return request.encode(), False
    found = members(request)
    if "stream" not in found or found["stream"].value is not True:
        request = with_member(request, "stream", "true")
    if not asks_usage:
        return request.encode(), False
    options = found.get("stream_options")
    if options is None or options.value is None:
        return with_member(request, "stream_options", '{"include_usage":true}').encode(), True
    if not isinstance(options.value, dict) or options.value.get("include_usage") is not None:
        return request.encode(), False
    written = members(request)["stream_options"]
    asking = with_member(request[written.start : written.end], "include_usage", "true")
    return with_member(request, "stream_options", asking).encode(), True


def _faults(request: Mapping[str, Any], mode: Validation) -> Iterator[Fault]:
    rules = RULES[mode]
    for name, why in _REQUIRED.items():
        if request.get(name) is None:
            yield Fault(f"request.{name}", f"is {'null' if name in request else 'missing'}; {why}")
    for name, value in request.items():
        rule = rules.get(name)
        if rule is not None and value is not None:
            yield from rule(f"request.{name}", value)
    if mode != "shape" and not _DEPENDENT.isdisjoint(request):
        yield from _interplay(request, mode)


def _interplay(request: Mapping[str, Any], mode: Validation) -> Iterator[Fault]:
    if request.get("stream_options") is not None and request.get("stream") is not True:
        yield Fault("request.stream_options", "is given without stream: true; set stream, or leave stream_options out")
    yield from choice_needs_tools(request)
    modalities = request.get("modalities")
    wants_audio = isinstance(modalities, list) and "audio" in modalities
    has_audio = request.get("audio") is not None
    if wants_audio and not has_audio:
        yield Fault("request.audio", 'is missing while modalities has "audio"; send a voice and a format')
    if has_audio and not wants_audio:
        yield Fault("request.audio", 'is given but modalities has no "audio"; send modalities: ["text", "audio"]')
    limits = request.get("max_tokens"), request.get("max_completion_tokens")
    if mode == "openai" and None not in limits:
        message = "is given together with max_completion_tokens, of which OpenAI takes one; leave one out"
        yield Fault("request.max_tokens", f'{message}, or set the endpoint\'s validation to "document"')
