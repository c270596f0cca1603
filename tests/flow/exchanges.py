"""Exchanges on the wire from the case file: a server that sends their bytes, and a comparison of the results."""

import base64
import json
import math
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.net.raw_server import Peer

# A refused key inside an answer pauses an endpoint like a 401.
TROUBLE_UNDER_200 = frozenset({"envelope-base-resp"})
FILE = Path(__file__).parents[1] / "cases" / "wire_cases.jsonl"


@dataclass(frozen=True, slots=True)
class Case:
    """A request, the bytes of each answer, and the expected result."""

    id: str
    request: str
    options: dict[str, Any]
    attempts: list[list[bytes]]
    expect: dict[str, Any]

    @property
    def endpoint(self) -> str:
        """The endpoint's name. A case that may pause its endpoint gets a separate one; the others share one, because
        each endpoint costs a TLS context.
        """
        status = int(self.attempts[0][0].split(b" ", 2)[1])
        is_quiet = status in (200, 404, 413, 422) or (status == 400 and "settle" not in self.expect)
        return "shared" if is_quiet and self.id not in TROUBLE_UNDER_200 else self.id

    @property
    def message(self) -> str:
        """The job message, with the request exactly as the case writes it."""
        fields = {"endpoint": self.endpoint, "custom_id": self.id, **self.options}
        return f'{{"request":{self.request},{json.dumps(fields)[1:]}'


def read_cases() -> list[Case]:
    cases = []
    for line in FILE.read_text().splitlines():
        case = json.loads(line)
        attempts = [[_bytes_of(piece) for piece in pieces] for pieces in case["attempts"]]
        cases.append(Case(case["id"], case["request"], case["options"], attempts, case["expect"]))
    return cases


def _bytes_of(piece: dict[str, str]) -> bytes:
    return base64.b64decode(piece["b64"]) if "b64" in piece else piece["send"].encode()


class Script:
    """The script of one raw server for all cases; the model's name in the request identifies the case."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = {case.id: case for case in cases}
        self._lock = threading.Lock()
        self._bodies: dict[str, list[str]] = defaultdict(list)

    def __call__(self, peer: Peer) -> None:
        request = peer.read_request()
        if not request:
            return
        body = request.partition(b"\r\n\r\n")[2].decode()
        case = self._cases[json.loads(body)["model"].removeprefix("case-")]
        with self._lock:
            self._bodies[case.id].append(body)
            number = len(self._bodies[case.id])
        # Requests beyond the case's last answer get that answer again, and the case reports them as surplus.
        peer.send(*case.attempts[min(number, len(case.attempts)) - 1])

    def bodies(self, case: Case) -> list[str]:
        """Return the bodies of the requests received for a case."""
        with self._lock:
            return list(self._bodies[case.id])


def differences(case: Case, job: Any, first: Any, bodies: list[str]) -> list[str]:
    """Compare a case's rows and requests with the expected ones; each difference is a line. `first` is attempt 1."""
    expect, found = case.expect, job._mapping
    wanted = {
        **{f"job.{name}": (found[name], value) for name, value in expect.get("job", {}).items()},
        **{f"attempt1.{name}": (first._mapping[name], value) for name, value in expect.get("attempt1", {}).items()},
        **{
            f"response.{path}": (_at(_parsed(found["response"]), path), value)
            for path, value in expect.get("response", {}).items()
        },
    }
    if "status" in expect:
        wanted["status"] = (found["status"], expect["status"])
    if "requests" in expect:
        wanted["requests"] = (len(bodies), expect["requests"])
    if "sent_body" in expect:
        wanted["sent_body"] = (bodies[0], expect["sent_body"])
    return [f"{name}: {got!r}, not {want!r}" for name, (got, want) in wanted.items() if not _matches(got, want)]


def _matches(got: Any, want: Any) -> bool:
    match want:
        case {"$in": list() as allowed}:
            return any(_matches(got, one) for one in allowed)
        case {"$contains": str() as part}:
            return part in (got if isinstance(got, str) else json.dumps(got, ensure_ascii=False))
        case {"$near": int() | float() as number}:
            return got is not None and math.isclose(float(got), number, rel_tol=1e-6)
        case {"$calls": list() as calls}:
            return [_call(call) for call in _parsed(got) or []] == calls or _matches_calls(_parsed(got) or [], calls)
        case dict() | list():
            return bool(_parsed(got) == want)
    return bool(got == want)


def _matches_calls(got: list[Any], calls: list[Any]) -> bool:
    pairs = [_call(call) for call in got]
    return len(pairs) == len(calls) and all(
        _matches(name, want[0]) and _matches(arguments, want[1])
        for (name, arguments), want in zip(pairs, calls, strict=True)
    )


def _call(call: Any) -> list[Any]:
    return [call["function"]["name"], call["function"]["arguments"]]


def _parsed(value: Any) -> Any:
    """Return a JSON column's value; SQLite's views show its text."""
    return json.loads(value) if isinstance(value, str) else value


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else (value or {}).get(step)
    return value
