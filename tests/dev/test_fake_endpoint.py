"""The fake endpoint over a real socket: its answers, its faults, its counts."""

import base64
import gc
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import httpx
import pytest

from tests.dev.asker import PAGE, Asker, body, wait_until
from worker.dev.fake.presets import NAMED
from worker.dev.fake.script import KINDS, Script
from worker.dev.fake.usage import SHAPES
from worker.dev.fake_endpoint import FakeEndpoint

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


@pytest.fixture
def ask(client: httpx.Client, fake: FakeEndpoint) -> Asker:
    return Asker(client, fake)


def test_a_plain_request_is_echoed_with_its_usage(ask: Asker) -> None:
    answer = ask(body()).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "You said: hello there"}, "finish_reason": "stop"}
    ]
    assert answer["usage"]["prompt_tokens"] == 2
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["total_tokens"] == 6


def test_the_same_request_gets_the_same_answer_byte_for_byte(ask: Asker) -> None:
    assert ask(body(), key="k").content == ask(body(), key="k").content


def joined(chunks: list[dict[str, Any]], name: str, index: int = 0) -> str:
    deltas = [one["delta"] for chunk in chunks for one in chunk["choices"] if one["index"] == index]
    return "".join(delta.get(name) or "" for delta in deltas)


def test_a_stream_is_the_plain_answer_in_pieces(ask: Asker) -> None:
    chunks = ask.chunks(body(n=2, stream_options={"include_usage": True}))
    plain = ask(body(n=2)).json()
    for index in (0, 1):
        assert joined(chunks, "content", index) == plain["choices"][index]["message"]["content"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == plain["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_a_stream_without_include_usage_reports_none(ask: Asker) -> None:
    assert all(chunk.get("usage") is None for chunk in ask.chunks(body()))


@pytest.mark.parametrize(("tool_choice", "model"), [("required", "any"), ("auto", "fake-tools")])
def test_tools_are_called_plain_and_streamed(ask: Asker, tool_choice: str, model: str) -> None:
    request = body(model, tools=TOOLS, tool_choice=tool_choice)
    choice = ask(request).json()["choices"][0]
    parts = [
        call["function"] for chunk in ask.chunks(request) for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    function = choice["message"]["tool_calls"][0]["function"]
    assert (choice["finish_reason"], function["name"], choice["message"]["content"]) == ("tool_calls", "weather", None)
    assert "".join(part["arguments"] for part in parts) == function["arguments"]


def test_a_named_tool_is_the_one_called(ask: Asker) -> None:
    choice = {"type": "function", "function": {"name": "second"}}
    answer = ask(body(tools=TOOLS, tool_choice=choice)).json()
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "second"


def test_reasoning_and_refusal_are_played(ask: Asker) -> None:
    thought = ask(body("fake-reasoning")).json()
    assert thought["choices"][0]["message"]["reasoning_content"].startswith("First")
    assert thought["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8
    refused = ask.chunks(body("fake-refusal"))
    assert joined(refused, "refusal") == "I cannot help with that."
    assert joined(refused, "content") == ""


def test_audio_comes_where_audio_was_asked_for(ask: Asker) -> None:
    request = body(modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"})
    whole = ask(request).json()["choices"][0]["message"]["audio"]
    parts = [chunk["choices"][0]["delta"].get("audio", {}) for chunk in ask.chunks(request)]
    sound = b"".join(base64.b64decode(part["data"]) for part in parts if "data" in part)
    assert sound == base64.b64decode(whole["data"])


def test_a_token_limit_cuts_the_answer(ask: Asker) -> None:
    choice = ask(body(max_tokens=2)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You said: ", "length")


def test_json_is_answered_where_json_was_asked_for(ask: Asker) -> None:
    text = ask(body(response_format={"type": "json_object"})).json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"echo": "You said: hello there"}


def test_a_lone_surrogate_and_a_nul_are_echoed(client: httpx.Client, fake: FakeEndpoint) -> None:
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "a\\ud800\\u0000"}]}'
    answer = client.post(f"{fake.url}/v1/chat/completions", content=raw).json()
    assert answer["choices"][0]["message"]["content"] == "You said: a\ud800\x00"


def usage_of(answer: dict[str, Any]) -> Any:
    return answer["usage"] or answer["choices"][0].get("usage") or answer.get("x_groq", {}).get("usage")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_usage_shape_is_reported_plain_and_streamed(ask: Asker, shape: str) -> None:
    request = body(fake={"usage": shape, "cached_tokens": 1}, stream_options={"include_usage": True})
    plain = usage_of(ask(request).json())
    streamed = [
        chunk.get("usage") or chunk.get("x_groq", {}).get("usage") or one.get("usage")
        for chunk in ask.chunks(request)
        for one in (chunk["choices"] or [{}])
    ]
    assert plain is not None
    assert [one for one in streamed if one] == [plain]


def test_usage_can_be_absent_or_given_as_it_shall_be(ask: Asker) -> None:
    assert ask(body("fake-no-usage")).json()["usage"] is None
    assert ask(body(fake={"usage": {"prompt_tokens": "7"}})).json()["usage"] == {"prompt_tokens": "7"}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 502, 503, 504, 529, 599])
def test_a_status_is_played_by_its_models_name(ask: Asker, status: int) -> None:
    answer = ask(body(f"fake-{status}"))
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)


def test_a_fault_once_is_followed_by_the_answer_of_the_same_job_only(ask: Asker) -> None:
    statuses = [ask(body("fake-500-twice"), key=key).status_code for key in ("a", "a", "b", "a", "a")]
    assert statuses == [500, 500, 500, 200, 200]


def test_a_script_of_outcomes_is_played_by_the_idempotency_key(ask: Asker) -> None:
    outcomes = [{"status": 429, "retry_after": 0.5}, {"error": "busy", "status": 503}, {"text": "at last"}]
    request = body(fake={"attempts": outcomes})
    first, second, third, fourth = (ask(request, key="one") for _ in range(4))
    assert (first.status_code, first.headers["retry-after"]) == (429, "0.5")
    assert (second.status_code, second.json()) == (503, {"error": "busy"})
    assert third.json()["choices"][0]["message"]["content"] == "at last"
    assert fourth.json() == third.json()


def test_a_request_without_a_key_is_known_by_its_body(ask: Asker) -> None:
    assert [ask(body("fake-500-once", text)).status_code for text in ("x", "x", "y")] == [500, 200, 500]


def test_a_script_may_be_in_the_metadata_or_in_a_header(ask: Asker) -> None:
    by_metadata = ask(body(metadata={"fake": '{"status": 418}'}))
    by_header = ask(body(fake={"status": 500}), X_Fake_Script='{"status": 402}')
    assert (by_metadata.status_code, by_header.status_code) == (418, 402)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"latency": 1}, "latency is no field of a script; did you mean latency_s?"),
        ({"status": "429"}, "status is '429'; it must be int"),
        ({"status": True}, "status is True; it must be int"),
        ({"usage": "opeanai"}, "usage is 'opeanai'; known shapes are none, plain"),
        ({"framing": "none"}, "framing is 'none'; it must be one of 'chunked', 'length', 'close'"),
        ({"attempts": []}, "attempts is []; it must be a list of scripts"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused_with_the_reason(ask: Asker, script: Any, reason: str) -> None:
    answer = ask(body(fake=script))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_fake_script"
    assert answer.json()["error"]["message"].startswith(reason)


@pytest.mark.parametrize("n", [129, 10**30])
def test_more_choices_than_a_provider_makes_are_refused(ask: Asker, n: int) -> None:
    assert ask(body(n=n)).json()["error"]["code"] == "integer_above_max_value"
    assert len(ask(body(n=128)).json()["choices"]) == 128


@pytest.mark.parametrize("request_", [{"messages": [{}]}, {"model": "m"}, {"model": "m", "messages": []}])
def test_an_impossible_request_is_refused_as_a_provider_would(ask: Asker, request_: dict[str, Any]) -> None:
    assert ask(request_).json()["error"]["code"] == "missing_required_parameter"


def test_a_body_that_is_not_json_is_refused(client: httpx.Client, fake: FakeEndpoint) -> None:
    assert client.post(f"{fake.url}/v1/chat/completions", content=b"{").status_code == 400


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A fault that the endpoint plays is no fault of the server."""
    yield
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def read_raw(fake: FakeEndpoint, request: dict[str, Any]) -> tuple[bytes, bool]:
    """Return every byte of the connection, and whether a reset ended it."""
    content = json.dumps(request).encode()
    with socket.create_connection(("127.0.0.1", fake.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
        )
        received = b""
        while True:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return received, True
            if not piece:
                return received, False
            received += piece


@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_is_cut_at_the_exact_byte(fake: FakeEndpoint, reset: bool) -> None:
    received, was_reset = read_raw(fake, body(fake={"cut_at": 123, "reset": reset}))
    head, _, rest = received.partition(b"\r\n\r\n")
    assert len(rest) == 123
    assert was_reset is reset
    assert b"Content-Length: " in head


def test_a_cut_stream_has_no_last_chunk_for_a_client_to_mistake_as_the_end(ask: Asker) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(body("fake-cut", stream=True))


def test_a_stream_framed_by_the_close_ends_with_it(fake: FakeEndpoint) -> None:
    received, was_reset = read_raw(fake, body(stream=True, fake={"framing": "close"}))
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Content-Length" not in head
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")
    assert not was_reset


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_may_get_no_answer_at_all(fake: FakeEndpoint, reset: bool) -> None:
    assert read_raw(fake, body(fake={"no_answer": True, "reset": reset})) == (b"", reset)
    assert fake.stats()["statuses"] == {"no_answer": 1}


def test_an_error_event_breaks_a_stream_off(ask: Asker) -> None:
    chunks = ask.chunks(body("fake-error-event"))
    assert len(chunks) == 4
    assert chunks[-1]["error"]["type"] == "server_error"


def test_html_and_garbage_and_errors_under_200_are_played(ask: Asker) -> None:
    assert ask(body("fake-html")).headers["content-type"] == "text/html"
    assert ask(body("fake-garbage", stream=True)).text == "data: {oops\n\n"
    assert ask(body("fake-error-200")).json() == {"error": {"message": "Overloaded."}}
    assert ask(body("fake-empty", stream=True)).text == "data: [DONE]\n\n"


def test_lines_may_end_in_other_ways_and_pieces_be_small(ask: Asker) -> None:
    text = ask(body(stream=True, fake={"line_end": "\r\n", "piece": 3, "done": False})).text
    assert text.endswith("}\r\n\r\n")
    assert "[DONE]" not in text


def test_silence_is_filled_with_pings(client: httpx.Client, fake: FakeEndpoint) -> None:
    request = body(stream=True, fake={"stall_after": 1, "stall_s": 3600.0, "ping_s": 0.01})
    with client.stream("POST", f"{fake.url}/v1/chat/completions", json=request) as answer:
        lines: Iterator[str] = answer.iter_lines()
        pings = 0
        for line in lines:
            pings += line == ": PING"
            if pings == 3:
                break
    wait_until(lambda: fake.stats()["in_flight"] == 0)
    assert fake.stats()["abandoned"] == 1


def test_requests_and_charges_are_counted_per_job(client: httpx.Client, fake: FakeEndpoint, ask: Asker) -> None:
    ask(body("fake-500-once"), key="a")
    ask(body("fake-500-once"), key="a")
    ask(body(), key="b")
    ask(body(), key="b")
    stats = client.get(f"{fake.url}/__stats").json()
    assert (stats["requests"], stats["jobs"], stats["billed"], stats["billed_duplicates"]) == (4, 2, 3, 1)
    assert stats["statuses"] == {"500": 1, "200": 3}
    assert client.get(f"{fake.url}/__stats", params={"key": "a"}).json() == {"requests": 2, "billed": 1}
    assert client.get(f"{fake.url}/__stats", params={"key": "z"}).json() == {"requests": 0, "billed": 0}
    client.post(f"{fake.url}/__reset")
    assert fake.stats()["requests"] == 0


def test_a_cut_answer_is_charged_and_a_refused_request_is_not(fake: FakeEndpoint) -> None:
    read_raw(fake, body("fake-cut"))
    read_raw(fake, body("fake-429", fake={"framing": "close"}))
    read_raw(fake, body(fake={"no_answer": True, "billed": True}))
    assert fake.stats()["billed"] == 2


def test_an_honoured_idempotency_key_replays_and_charges_once(ask: Asker, fake: FakeEndpoint) -> None:
    request = body(fake={"idempotency": "honoured"})
    first, again = ask(request, key="a"), ask(request, key="a")
    other = ask(body("other", fake={"idempotency": "honoured"}), key="a")
    assert first.content == again.content
    assert other.status_code == 422
    assert fake.job("a") == {"requests": 3, "billed": 1}
    assert fake.stats()["replayed"] == 1


def test_an_honoured_key_refuses_a_second_request_while_the_first_runs(ask: Asker, fake: FakeEndpoint) -> None:
    request = body(fake={"idempotency": "honoured", "attempts": [{"latency_s": 30.0}, {}]})
    with ThreadPoolExecutor(1) as pool, httpx.Client(trust_env=False) as other:
        running = pool.submit(Asker(other, fake), request, key="a")
        wait_until(lambda: fake.stats()["in_flight"] == 1)
        assert ask(request, key="a").status_code == 409
        fake.stop()
        with pytest.raises(httpx.HTTPError):
            running.result()
        fake.start()


def test_only_the_right_key_is_let_in_and_no_key_is_kept(client: httpx.Client) -> None:
    with FakeEndpoint(key="sk-geheim") as fake:
        ask = Asker(client, fake)
        assert ask(body(), Authorization="Bearer wrong").status_code == 401
        assert ask(body(), Authorization="Bearer sk-geheim").status_code == 200
        assert [one["headers"]["authorization"] for one in fake.requests()] == ["Bearer ***", "Bearer ***"]


def test_requests_are_kept_as_they_came(client: httpx.Client, fake: FakeEndpoint, ask: Asker) -> None:
    answer = ask(body(text="exact"), key="k", X_Oneapi_Request_Id="attempt-1")
    (kept,) = client.get(f"{fake.url}/__requests", params={"key": "k"}).json()
    assert answer.headers["x-oneapi-request-id"] == "attempt-1"
    assert kept["headers"]["x-oneapi-request-id"] == "attempt-1"
    assert json.loads(kept["body"]) == body(text="exact")


def test_the_models_it_plays_can_be_listed(client: httpx.Client, fake: FakeEndpoint) -> None:
    names = {one["id"] for one in client.get(f"{fake.url}/v1/models").json()["data"]}
    assert {"fake-echo", "fake-cut", "fake-quota"} <= names


def test_a_taken_port_is_an_error_of_the_caller(fake: FakeEndpoint) -> None:
    with pytest.raises(OSError, match="address already in use"):
        FakeEndpoint(port=fake.port).start()


def test_every_field_of_a_script_has_its_kind() -> None:
    assert {one.name for one in fields(Script)} == set(KINDS)


def test_the_page_names_every_model_every_field_and_every_shape() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in (*NAMED, *KINDS, *SHAPES):
        assert f"`{name}`" in page, name


def test_a_connection_that_comes_as_it_stops_is_closed() -> None:
    # A socket that stays open causes a warning when it is collected, and a warning fails the suite.
    for _ in range(5):
        with FakeEndpoint() as fake:
            socket.create_connection(("127.0.0.1", fake.port)).close()
        gc.collect()


def test_the_weather_wins_over_a_requests_own_script(ask: Asker, fake: FakeEndpoint) -> None:
    scripted = body(fake={"attempts": [{"status": 429}, {}]})
    fake.endpoint.weather = {"status": 503}
    assert [ask(scripted, key="k").status_code for _ in range(2)] == [503, 503]

    fake.endpoint.weather = {}
    assert ask(scripted, key="k").status_code == 200
