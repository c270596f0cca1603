"""Fake endpoint: invent the completion of a request, whole or in chunks; equal requests get equal answers."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any

from worker.dev.fake.script import Script
from worker.dev.fake.usage import Counts, shaped

CREATED = 1_700_000_000
FILLER = "afterword speaks when all is said and done "


def encode(value: object) -> bytes:
    """Return compact JSON in UTF-8, as providers send it; escaped if the text cannot be encoded."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate in the echoed text
        return json.dumps(value, separators=(",", ":")).encode()


def completion(request: Mapping[str, Any], script: Script, *, job: str) -> tuple[dict[str, Any], Counts]:
    """Return the chat.completion for a request, with usage at the place of the script's shape, and its tokens."""
    wanted = request.get("n")
    n = wanted if isinstance(wanted, int) and wanted > 0 else 1
    choices = [_choice(request, script, index) for index in range(n)]
    counts = count(request, script, choices)
    place, usage = shaped(script.usage, counts)
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{hashlib.sha256(job.encode('utf-8', 'replace')).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": CREATED,
        "model": request.get("model"),
        "choices": choices,
        "usage": usage if place == "top" else None,
        "system_fingerprint": "fp_fake",
    }
    if place == "choice":
        choices[0]["usage"] = usage
    elif place == "x_groq":
        answer["x_groq"] = {"usage": usage}
    return answer, counts


def _choice(request: Mapping[str, Any], script: Script, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if script.reasoning is not None:
        message["reasoning_content"] = script.reasoning
    if calls := _tool_calls(request, script, index):
        message["tool_calls"] = calls
        return {"index": index, "message": message, "finish_reason": _finish(script, "tool_calls")}
    if script.refusal is not None:
        message["refusal"] = script.refusal
        return {"index": index, "message": message, "finish_reason": _finish(script, "stop")}
    spoken, is_whole = _spoken(request, script, index)
    if "audio" in (request.get("modalities") or ()):
        message["audio"] = _audio(spoken, index)
    else:
        message["content"] = spoken
    return {"index": index, "message": message, "finish_reason": _finish(script, "stop" if is_whole else "length")}


def _finish(script: Script, reason: str) -> str | None:
    return (reason if script.finish_reason is None else script.finish_reason) or None


def _spoken(request: Mapping[str, Any], script: Script, index: int) -> tuple[str, bool]:
    text = _text(request, script) + (f" ({index + 1})" if index else "")
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    words = _words(text)
    if not isinstance(limit, int) or len(words) <= limit:
        return text, True
    return "".join(words[:limit]), False


def _text(request: Mapping[str, Any], script: Script) -> str:
    if script.size:
        return (FILLER * (script.size // len(FILLER) + 1))[: script.size]
    if script.text is not None:
        return script.text
    echo = f"You said: {_last_user_text(request)}"
    wanted = request.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema"):
        return json.dumps({"echo": echo})
    return echo


def _tool_calls(request: Mapping[str, Any], script: Script, index: int) -> list[dict[str, Any]]:
    tools = [tool.get("function", {}).get("name") for tool in request.get("tools") or () if isinstance(tool, dict)]
    wanted, calls = request.get("tool_choice"), list(script.tool_calls)
    if isinstance(wanted, dict) and not calls:
        calls = [{"name": (wanted.get("function") or {}).get("name")}]
    elif wanted == "required" and not calls:
        calls = [{"name": ""}]
    first = tools[0] if tools else "lookup"
    return [
        {
            "id": f"call_{index}_{number}",
            "type": "function",
            "function": {"name": call.get("name") or first, "arguments": call.get("arguments", "{}")},
        }
        for number, call in enumerate(calls)
    ]


def _audio(transcript: str, index: int) -> dict[str, Any]:
    sound = base64.b64encode(hashlib.sha256(transcript.encode("utf-8", "replace")).digest() * 6).decode()
    return {"id": f"audio_{index}", "data": sound, "transcript": transcript, "expires_at": CREATED + 3600}


def _last_user_text(request: Mapping[str, Any]) -> str:
    messages = [message for message in request.get("messages") or () if isinstance(message, dict)]
    from_user = [message for message in messages if message.get("role") == "user"]
    return _content_text(from_user[-1].get("content")) if from_user else ""


def _content_text(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text") or part.get("type")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*|\s+", text)


def count(request: Mapping[str, Any], script: Script, choices: list[dict[str, Any]]) -> Counts:
    """Return the token counts of an answer. A token is a word here, and a person can check the numbers."""
    prompt = prompt_tokens(request)
    reasoning = len(_words(script.reasoning or "")) * len(choices)
    spoken = sum(len(_words(text)) for choice in choices for text in _texts(choice["message"]))
    audio = sum(len(_words((choice["message"].get("audio") or {}).get("transcript", ""))) for choice in choices)
    cached = min(script.cached_tokens, prompt)
    return Counts(prompt, spoken + reasoning, reasoning=reasoning, cached=cached, audio=audio)


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Return the tokens of a request's messages."""
    messages = [message for message in request.get("messages") or () if isinstance(message, dict)]
    return sum(len(_words(_content_text(message.get("content")))) for message in messages)


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    yield message.get("content") or ""
    yield message.get("refusal") or ""
    yield (message.get("audio") or {}).get("transcript", "")
    for call in message.get("tool_calls") or ():
        yield f"{call['function']['name']} {call['function']['arguments']}"


def chunks(answer: Mapping[str, Any], script: Script, *, include_usage: bool) -> list[dict[str, Any]]:
    """Return the chat.completion.chunk objects of an answer: its choices interleaved, then usage if requested."""
    envelope = {name: answer[name] for name in ("id", "created", "model", "system_fingerprint")}
    envelope["object"] = "chat.completion.chunk"
    rounds = zip_longest(*(_deltas(choice, script) for choice in answer["choices"]))
    objects = [envelope | {"choices": [delta]} for delta in chain.from_iterable(rounds) if delta is not None]
    if "x_groq" in answer:
        objects[-1]["x_groq"] = answer["x_groq"]
    if include_usage and answer["usage"] is not None:
        objects = [chunk | {"usage": None} for chunk in objects]
        objects.append(envelope | {"choices": [], "usage": answer["usage"]})
    return objects


def _deltas(choice: Mapping[str, Any], script: Script) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a choice: the role, then each part of the message in pieces, then the finish_reason."""
    message, index = choice["message"], choice["index"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if message["content"] is not None else None}]
    for name in ("reasoning_content", "refusal", "content"):
        deltas += [{name: piece} for piece in _pieces(message.get(name) or "", script.chunks)]
    deltas += [{"tool_calls": [part]} for part in _tool_parts(message.get("tool_calls") or (), script)]
    deltas += [{"audio": part} for part in _audio_parts(message.get("audio"))]
    for delta in deltas:
        yield {"index": index, "delta": delta, "finish_reason": None}
    if choice["finish_reason"] is not None:
        last = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}
        yield last | ({"usage": choice["usage"]} if "usage" in choice else {})


def _pieces(text: str, number: int) -> list[str]:
    if number <= 0:
        return _words(text)
    step = max(1, -(-len(text) // number))
    return [text[at : at + step] for at in range(0, len(text), step)]


def _tool_parts(calls: Any, script: Script) -> Iterator[dict[str, Any]]:
    for index, call in enumerate(calls):
        function = call["function"]
        yield {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        for piece in _pieces(function["arguments"], script.chunks):
            yield {"index": index, "function": {"arguments": piece}}


def _audio_parts(audio: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    if audio is None:
        return
    yield {"id": audio["id"]}
    for piece in _words(audio["transcript"]):
        yield {"transcript": piece}
    data = audio["data"]
    for at in range(0, len(data), 64):
        yield {"data": data[at : at + 64]}
    yield {"expires_at": audio["expires_at"]}
