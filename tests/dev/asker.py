"""A client that asks the fake endpoint, and its page."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx

from worker.dev.fake_endpoint import FakeEndpoint

PAGE = Path(__file__).parent.parent.parent / "ops" / "fake_endpoint.md"


def body(model: str = "any", text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


class Asker:
    """Posts requests to the fake endpoint."""

    def __init__(self, client: httpx.Client, fake: FakeEndpoint) -> None:
        self.client, self.url = client, f"{fake.url}/v1/chat/completions"

    def __call__(self, request: dict[str, Any], *, key: str | None = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        named |= {"Idempotency-Key": key} if key else {}
        return self.client.post(self.url, json=request, headers=named)

    def chunks(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self({**request, "stream": True})
        assert answer.headers["content-type"] == "text/event-stream"
        events = answer.text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def wait_until(true: Any) -> None:
    event = threading.Event()
    for _ in range(1000):
        if true():
            return
        event.wait(0.01)
    raise AssertionError("the condition was not true within ten seconds")
