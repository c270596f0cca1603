"""Fake endpoint: answer a request: decide by script and limits, write, and keep the ledger."""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import web

from worker.dev.fake.answers import prompt_tokens
from worker.dev.fake.ledger import Ledger, LedgerLine, Row, key_name
from worker.dev.fake.limit_answers import limit_headers, refused
from worker.dev.fake.limiter import AdmittedCall, Demand, LimitRefusal, ProviderLimiter
from worker.dev.fake.limits import MOST
from worker.dev.fake.plan import Plan, plan, refusal
from worker.dev.fake.script import HEADER, BadScript, Script, choose, controls, job_of
from worker.dev.fake.transmission import hang_up, write
from worker.dev.fake.usage import SHAPES, Counts

MOST_CHOICES = 128  # OpenAI's limit for a request
STARTED_S = time.time() - time.monotonic()


def now_s() -> float:
    """Return the seconds since 1970. The clock never goes back."""
    return STARTED_S + time.monotonic()


@dataclass(slots=True)
class _Turn:
    """One request on its way through the server."""

    asked: dict[str, Any] | None
    body: bytes
    key: str
    line: LedgerLine
    call: AdmittedCall | None = None  # None: refused, or not under limits


@dataclass(slots=True)
class FakeServer:
    """A fake endpoint: its demands, its limits, its ledger, and the saved answers of Idempotency-Keys."""

    key: str | None = None  # the only accepted Bearer key; None: no key is checked
    idempotency: Literal["ignored", "honoured"] = "ignored"
    outage: Script | None = None  # while set, every request gets this script
    ledger: Ledger = field(default_factory=Ledger)
    saved: dict[str, Plan] = field(default_factory=dict)
    # Fields of a script that win over every request's own script, for simulated trouble of the endpoint.
    weather: dict[str, Any] = field(default_factory=dict)
    limiter: ProviderLimiter = field(default_factory=ProviderLimiter)

    def reset(self) -> None:
        """Delete the counters and the saved answers. The limits stay, and start unused."""
        self.ledger, self.saved = Ledger(), {}
        self.limiter.replace(self.limiter.limits)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion."""
        in_s = now_s()
        body = await request.read()
        job = job_of(request.headers.get("Idempotency-Key"), body)
        asked = _object(body)
        key = request.headers.get("Authorization", "").partition(" ")[2]
        line = LedgerLine(in_s, job, key_name(key), str(asked.get("model")) if asked else "")
        turn = _Turn(asked, body, key, line)
        ledger = self.ledger
        ledger.open(line)
        ledger.keep(job=job, headers=dict(request.headers), body=body)
        try:
            return await self._play(request, turn)
        except asyncio.CancelledError:
            line.abandoned = True
            raise
        finally:
            out_s = now_s()
            if turn.call is not None:
                self.limiter.leave(turn.call, out_s)
            ledger.close(line, out_s)

    async def _play(self, request: web.Request, turn: _Turn) -> web.StreamResponse:
        answer_plan, script = self._decide(request, turn)
        row, job = turn.line.row, turn.line.job
        await asyncio.sleep(script.latency_s)
        if script.billed is True:
            row.billed += 1
        if script.no_answer:
            self.ledger.statuses["no_answer"] += 1
            hang_up(request, reset=script.reset)
            return web.Response()
        turn.line.status = answer_plan.status
        self.ledger.statuses[str(answer_plan.status)] += 1
        kept = self.saved.get(job) is answer_plan
        if script.billed is None and answer_plan.status < 400 and not kept:
            row.billed += 1
        if kept:
            self.ledger.replayed += 1
        elif self._honours(script) and answer_plan.status < 400:
            self.saved[job] = answer_plan
        return await write(request, answer_plan, script)

    def _honours(self, script: Script) -> bool:
        return "honoured" in (self.idempotency, script.idempotency)

    def _decide(self, request: web.Request, turn: _Turn) -> tuple[Plan, Script]:
        asked, job = turn.asked, turn.line.job
        fault = self._fault(request, asked)
        if fault is not None or asked is None:
            return fault or refusal(400, "The body is not a JSON object.", code="bad_json"), Script()
        if self.outage is not None:
            return plan(asked, self.outage, job=job), self.outage
        try:
            given = controls(asked, request.headers.get(HEADER))
            script = choose(given, turn=turn.line.row.requests, weather=self.weather)
            if isinstance(script.usage, str) and script.usage not in (*SHAPES, "none"):
                raise BadScript(f"usage is {script.usage!r}; known shapes are none, {', '.join(SHAPES)}")
        except BadScript as error:
            return refusal(400, str(error), code="bad_fake_script", param="fake"), Script()
        if self._honours(script) and (repeated := self._repeated(turn.line.row, job=job, body=turn.body)) is not None:
            return repeated, Script()
        return self._limited(turn, asked, plan(asked, script, job=job), script)

    def _limited(self, turn: _Turn, asked: dict[str, Any], answer_plan: Plan, script: Script) -> tuple[Plan, Script]:
        """Return the plan if the limits admit the request, else a 429."""
        line, used, now = turn.line, answer_plan.counts, now_s()
        limiter = self.limiter
        reserved = Counts(prompt_tokens(asked), _most_output(asked), cached=used.cached) if limiter.limits else used
        demand = Demand(turn.key, line.model, reserved, used)
        verdict = limiter.admit(demand, now)
        line.in_flight = limiter.in_flight[turn.key, line.model]
        if isinstance(verdict, LimitRefusal):
            line.refused = verdict.name
            answer_plan, line.retry_after_s = refused(verdict, demand, limiter.groups(demand), now)
            return answer_plan, Script()
        turn.call, line.charged_tokens = verdict, verdict.charged
        line.prompt_tokens, line.cached_tokens, line.completion_tokens = used.prompt, used.cached, used.completion
        if verdict.groups:
            shown = limit_headers(verdict.groups, now)
            answer_plan = replace(answer_plan, headers={**answer_plan.headers, **shown})
        return answer_plan, script

    def _fault(self, request: web.Request, asked: dict[str, Any] | None) -> Plan | None:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, "Incorrect API key provided.", code="invalid_api_key")
        if asked is not None and not isinstance(asked.get("model"), str):
            return refusal(400, "'model' is required.", code="missing_required_parameter", param="model")
        if asked is not None and not (isinstance(asked.get("messages"), list) and asked["messages"]):
            return refusal(400, "'messages' is required.", code="missing_required_parameter", param="messages")
        n = None if asked is None else asked.get("n")
        if isinstance(n, int) and n > MOST_CHOICES:
            return refusal(400, f"'n' is above {MOST_CHOICES}.", code="integer_above_max_value", param="n")
        return None

    def _repeated(self, row: Row, *, job: str, body: bytes) -> Plan | None:
        fingerprint = hashlib.sha256(body).hexdigest()
        row.fingerprint = row.fingerprint or fingerprint
        if row.fingerprint != fingerprint:
            return refusal(422, "This Idempotency-Key came with another request.", code="idempotency_mismatch")
        if row.running > 1:
            return refusal(409, "The first request with this Idempotency-Key still runs.", code="idempotency_busy")
        return self.saved.get(job)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _most_output(asked: dict[str, Any]) -> int:
    """Return `max_tokens` for all choices; 0 without it."""
    limit, n = asked.get("max_completion_tokens") or asked.get("max_tokens"), asked.get("n")
    return (min(limit, MOST) if isinstance(limit, int) and limit > 0 else 0) * (
        n if isinstance(n, int) and n > 0 else 1
    )
