"""Validates a chat request against the endpoint's document, and makes the body for the wire.

The document is `POST /v1/chat/completions` in `api_contracts/openapi.yaml`. For fields it does not describe, OpenAI's
schema counts; fields that neither describes pass. Nothing is renamed, repaired or filled with a default.
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

# Fields with rules about other fields.
_DEPENDENT = frozenset({"stream_options", "tool_choice", "modalities", "audio", "max_completion_tokens"})


def validate(request: Mapping[str, Any], mode: Validation = "document") -> list[Fault]:
    """Return the faults of a request, at most FAULT_LIMIT; an empty list means that it is valid.

    `mode` is the endpoint's setting `validation`: "document" (its types and ranges, and OpenAI's rules between fields),
    "openai" (also OpenAI's ranges, words and forms of names) or "shape" (model, messages and types only). An optional
    field that is null counts as absent. The only rule that chat_request.schema.json cannot express: tool_choice must
    name an existing tool.
    """
    return list(islice(_faults(request, mode), FAULT_LIMIT))


def wire_body(request: str, *, streamed: bool, asks_usage: bool = True) -> tuple[bytes, bool]:
    """Return the body for the wire, and whether `include_usage` was added: `(b'{"model": …}', True)`.

    A streamed request gets `"stream": true`, and `include_usage` unless the caller set it: without `include_usage`
    a gateway does not send the usage. Every other character stays. `asks_usage=False`: do not add `include_usage`,
    because this endpoint refuses it.
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
    for name, remedy in _REQUIRED.items():
        if request.get(name) is None:
            yield Fault(f"request.{name}", f"is {'null' if name in request else 'missing'}; {remedy}")
    for name, value in request.items():
        rule = rules.get(name)
        if rule is not None and value is not None:
            yield from rule(f"request.{name}", value)
    if mode != "shape" and not _DEPENDENT.isdisjoint(request):
        yield from _rules_between_fields(request, mode)


def _rules_between_fields(request: Mapping[str, Any], mode: Validation) -> Iterator[Fault]:
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
        message = "is given together with max_completion_tokens, but OpenAI takes only one of them; leave one out"
        yield Fault("request.max_tokens", f'{message}, or set the endpoint\'s validation to "document"')
