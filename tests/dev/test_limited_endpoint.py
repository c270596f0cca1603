"""The fake endpoint under limits over a real socket, and its ledger while it runs."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from tests.dev.test_fake_endpoint import PAGE, Asker, body, wait_until
from worker.cli import main
from worker.dev.fake.ledger import SHOWN, key_name
from worker.dev.fake.limits import ALLOWANCES, WORDS, ProviderLimit, load_limits
from worker.dev.fake_endpoint import FakeEndpoint, serve


@pytest.fixture
def limited(fake: FakeEndpoint) -> Iterator[FakeEndpoint]:
    yield fake
    fake.set_limits([])


@pytest.fixture
def ask(client: httpx.Client, limited: FakeEndpoint) -> Asker:
    return Asker(client, limited)


def ledger(client: httpx.Client, fake: FakeEndpoint, **query: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get(f"{fake.url}/__ledger", params=query).text.splitlines()]


def test_without_limits_nothing_of_them_is_sent_and_the_ledger_is_kept(
    client: httpx.Client, ask: Asker, limited: FakeEndpoint
) -> None:
    answer = ask(body(), key="j", Authorization="Bearer sk-blue")
    assert not [name for name in answer.headers if "ratelimit" in name or name == "retry-after"]
    (line,) = ledger(client, limited)
    assert line == {
        "number": 1, "in_s": line["in_s"], "out_s": line["out_s"], "job": "j", "key": key_name("sk-blue"),
        "model": "any", "status": 200, "refused": None, "retry_after_s": None, "prompt_tokens": 2, "cached_tokens": 0,
        "completion_tokens": 4, "charged_tokens": 6, "in_flight": 1, "abandoned": False,
    }  # fmt: skip
    assert line["in_s"] < line["out_s"] < line["in_s"] + 10
    assert limited.lines() == [line]


def test_a_request_above_the_limit_gets_a_429_and_a_ledger_line(ask: Asker, limited: FakeEndpoint) -> None:
    limited.set_limits([{"requests_per_minute": 2, "tokens_per_minute": 1000}])
    answers = [ask(body(max_tokens=30), key=key) for key in "abc"]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert answers[2].headers["retry-after"] == "30"
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert [(line["refused"], line["status"], line["retry_after_s"]) for line in limited.lines()] == [
        (None, 200, None), (None, 200, None), ("requests_per_minute", 429, 30.0),
    ]  # fmt: skip
    assert [line["charged_tokens"] for line in limited.lines()] == [32, 32, 0]
    assert limited.stats()["refused"] == 1
    assert (limited.job("c"), limited.job("b")) == ({"requests": 1, "billed": 0}, {"requests": 1, "billed": 1})


def test_keys_and_models_have_their_own_limits(ask: Asker, limited: FakeEndpoint) -> None:
    limited.set_limits([{"requests_per_minute": 1, "kind": "sliding"}])
    pairs = [("sk-blue", "m"), ("sk-green", "m"), ("sk-blue", "n"), ("sk-blue", "m")]
    found = [ask(body(model), Authorization=f"Bearer {key}").status_code for key, model in pairs]
    assert found == [200, 200, 200, 429]
    shown = json.dumps(limited.lines()) + json.dumps(limited.requests())
    assert "sk-blue" not in shown
    assert len({line["key"] for line in limited.lines()}) == 2


def test_the_slot_of_a_client_that_leaves_is_free_again(
    client: httpx.Client, ask: Asker, limited: FakeEndpoint
) -> None:
    limited.set_limits([{"kind": "slots", "max_in_flight": 1}])
    stalled = body(stream=True, fake={"stall_after": 1, "stall_s": 3600.0, "ping_s": 0.01})
    with client.stream("POST", ask.url, json=stalled):
        wait_until(lambda: limited.stats()["in_flight"] == 1)
        assert ask(body()).status_code == 429
        assert [(line["out_s"], line["in_flight"]) for line in ledger(client, limited)][1:] == [(None, 1)]
    wait_until(lambda: limited.stats()["in_flight"] == 0)
    assert ask(body()).status_code == 200
    assert [line["abandoned"] for line in limited.lines()] == [False, True, False]


def test_no_more_calls_are_in_flight_than_slots(limited: FakeEndpoint) -> None:
    limited.set_limits([{"kind": "slots", "max_in_flight": 3}])
    with ThreadPoolExecutor(8) as pool, httpx.Client(trust_env=False) as client:
        ask = Asker(client, limited)
        answers = list(pool.map(lambda _: ask(body(fake={"latency_s": 0.02})).status_code, range(60)))
    lines = limited.lines()
    assert answers.count(429) == sum(line["refused"] == "max_in_flight" for line in lines) > 0
    assert max(line["in_flight"] for line in lines) == 3


def test_the_ledger_is_read_in_parts_while_requests_run(
    client: httpx.Client, ask: Asker, limited: FakeEndpoint
) -> None:
    ask(body(), key="a")
    ask(body(), key="b")
    assert [line["job"] for line in ledger(client, limited, after=1)] == ["b"]
    with client.stream("POST", ask.url, json=body(stream=True, fake={"stall_after": 1, "stall_s": 3600.0})):
        wait_until(lambda: limited.stats()["in_flight"] == 1)
        assert [line["number"] for line in ledger(client, limited, after=1)] == [2, None]
        assert [line["number"] for line in ledger(client, limited, after=2)] == [None]
    wait_until(lambda: limited.stats()["in_flight"] == 0)
    assert [line["number"] for line in ledger(client, limited, after=2)] == [3]
    assert client.get(f"{limited.url}/__ledger", params={"after": "x"}).status_code == 400


def test_limits_are_changed_and_shown_while_it_runs(client: httpx.Client, ask: Asker, limited: FakeEndpoint) -> None:
    limits = [{"kind": "window", "requests_per_minute": 1000, "max_in_flight": 5}]
    assert client.post(f"{limited.url}/__limits", json=limits).json() == limits
    assert ask(body()).headers["x-ratelimit-limit-requests"] == "1000"
    wrong = client.post(f"{limited.url}/__limits", json=[{"kind": "x"}, {}])
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "bad_limits")
    assert len(wrong.json()["error"]["message"].splitlines()) == 2
    assert client.post(f"{limited.url}/__limits", content=b"[").status_code == 400
    assert client.get(f"{limited.url}/__limits").json() == limits
    client.post(f"{limited.url}/__reset")
    assert client.get(f"{limited.url}/__limits").json() == limits
    client.post(f"{limited.url}/__limits", json=[])
    assert "x-ratelimit-limit-requests" not in ask(body()).headers


def test_the_command_serves_the_limits_that_it_was_given(client: httpx.Client) -> None:
    limits = [{"kind": "slots", "max_in_flight": 4}]

    async def serve_once() -> Any:
        urls: asyncio.Queue[str] = asyncio.Queue()
        serving = asyncio.create_task(
            serve(
                host="127.0.0.1", port=0, key=None, idempotency="ignored", ready=urls.put_nowait,
                limits=json.dumps(limits),
            )
        )  # fmt: skip
        url = await urls.get()
        shown = await asyncio.to_thread(lambda: client.get(f"{url}/__limits").json())
        serving.cancel()
        await asyncio.wait([serving])
        return shown

    assert asyncio.run(serve_once()) == limits


def test_a_failing_script_is_limited_too_and_a_replay_is_not(ask: Asker, limited: FakeEndpoint) -> None:
    limited.set_limits([{"requests_per_minute": 2, "kind": "sliding", "per": "all"}])
    replayed = body(fake={"idempotency": "honoured"})
    assert [ask(replayed, key="a").status_code for _ in range(3)] == [200, 200, 200]
    assert [ask(body("fake-500")).status_code for _ in range(2)] == [500, 429]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_pages_example_in_python_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(code, {})
    assert capsys.readouterr().out == "200 None\n200 None\n429 5\n1 of 3 refused\n"


def test_the_pages_limits_and_commands_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (toml,) = blocks("toml")
    Path("limits.toml").write_text(toml)
    command = main.get_command(click.Context(main), "fake-endpoint")
    assert command is not None
    for line in "".join(blocks("sh")).splitlines():
        context = command.make_context("fake-endpoint", shlex.split(line)[2:])
        assert load_limits(context.params["limits"])
    assert [limit.per for limit in load_limits("limits.toml")] == ["key_and_model", "key"]


def test_the_page_names_every_field_and_word_of_limits_and_ledger() -> None:
    page = PAGE.read_text(encoding="utf-8")
    words = [word for name in WORDS for word in WORDS[name]]
    for name in (*ProviderLimit.__slots__, *words, *ALLOWANCES, *SHOWN):
        assert f"`{name}`" in page, name


def test_a_key_is_named_as_the_page_shows() -> None:
    assert key_name("sk-blue") in PAGE.read_text(encoding="utf-8")
    assert key_name("") == ""
