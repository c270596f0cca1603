"""What one worker process knows of its endpoints: who answered, who fails too often, who rests. Asked after each call.

Most calls cost it a few assignments; only trouble, and what a probe brought, goes to the database before the job does.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from sqlalchemy import Engine

from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode
from worker.jobs.core.circuit_breaker import QUIET_S, Breaker
from worker.jobs.core.endpoint_health import ALONE, HOLD_S, PROBE_S, CallSign, FailureOwner, State, Verdict, sign_of
from worker.jobs.net.progress import Reply
from worker.jobs.store import endpoint_breaker, endpoint_trouble, endpoints
from worker.jobs.store.claim import Claim
from worker.jobs.store.endpoint_breaker import BreakerTrip, FailingCall
from worker.jobs.store.endpoint_trouble import Trouble
from worker.jobs.store.endpoints import Answered, EndpointRow, ProbeSucceeded
from worker.store.engine import describe
from worker.store.group_commit import Batcher

log = structlog.get_logger()


class EndpointMonitor:
    """One a process, asked on the loop; `exchange` in another thread. `wake(delay_s)` wakes the dispatcher."""

    def __init__(
        self, engine: Engine, batcher: Batcher, names: Iterable[str], *, wake: Callable[[float], None]
    ) -> None:
        self._engine, self._batcher, self._wake = engine, batcher, wake
        self._breakers = {name: Breaker() for name in names}
        # When the latest call began that was answered, and when an answer last came, monotonic; and which of the latter
        # all others have been told.
        self._answered = dict.fromkeys(self._breakers, -math.inf)
        self._came = dict(self._answered)
        self._told = dict(self._answered)
        self._seen: Mapping[str, EndpointRow] = {}
        self._seen_at = 0.0
        self._is_new = True

    def is_open(self, endpoint: str) -> bool:
        """Say whether jobs of an endpoint start freely, by the last look: a second old."""
        seen = self._seen.get(endpoint)
        return seen is None or seen.state is State.open

    def exchange(self) -> None:
        """Tell the others of answers, and see which endpoints rest; a chore of every second.

        The first time, what waits for an endpoint of ours is tried soon: our settings may be what mends its trouble. A
        job that was held alone waits no longer than others once another was answered.
        """
        looked_at = time.monotonic()
        came = dict(self._came)
        news = {
            name: Answered(looked_at - self._answered[name], looked_at - at)
            for name, at in came.items()
            if at > self._told[name]
        }
        with self._engine.begin() as connection:
            endpoints.tell_answered(connection, news)
            seen = endpoints.look(connection)
        self._told = came
        self._seen_at, self._seen = looked_at, seen
        # Apart, because the rows above are locked in the order of their names.
        if cleared := [one.name for one in seen.values() if one.is_cleared]:
            with self._engine.begin() as connection:
                if endpoints.clear_suspects(connection, cleared):
                    self._wake(HOLD_S)
        if self._is_new:
            with self._engine.begin() as connection:
                endpoints.try_soon(connection, list(self._breakers))
            self._is_new = False
            self._wake(0.0)

    async def judge(self, got: Claim, endpoint: Endpoint, reply: Reply) -> Verdict:
        """Note how a call ended; say whose its failure is."""
        sign = sign_of(reply.failure, timeout_s=min(got.timeout_s, got.left_s), total_s=endpoint.total_s)
        now = time.monotonic()
        began = now - reply.elapsed_s
        if got.probe:
            log.info("endpoint.probed", endpoint=got.endpoint, answer=sign, error_code=_code(reply))
        try:
            match sign:
                case CallSign.answered:
                    await self._note_answer(got, began, now)
                case CallSign.trouble:
                    return await self._judge_trouble(got, reply, began)
                case CallSign.sick if got.probe:
                    # Held like other trouble, unless it may have been billed and must not be repeated.
                    return Verdict(FailureOwner.endpoint) if reply.failure and reply.failure.retryable else ALONE
                case CallSign.sick:
                    await self._note_sickness(got, reply, began, now)
        except Exception as error:
            # What came of the call is worth more than what we could not note of it.
            log.error("endpoint.not_judged", endpoint=got.endpoint, **describe(error))
            return Verdict(FailureOwner.endpoint) if sign is CallSign.trouble else ALONE
        return ALONE

    async def _note_answer(self, got: Claim, began: float, now: float) -> None:
        self._answered[got.endpoint] = max(self._answered[got.endpoint], began)
        self._came[got.endpoint] = now
        self._breakers[got.endpoint].answered(now)
        if not got.probe:
            return
        rested_s = await self._batcher.submit(endpoints.passed, ProbeSucceeded(got.endpoint, now - began))
        if rested_s is not None:
            log.info("endpoint.resumed", endpoint=got.endpoint, rested_s=round(rested_s, 3))
            self._wake(0.0)

    async def _judge_trouble(self, got: Claim, reply: Reply, began: float) -> Verdict:
        assert reply.failure is not None
        code, now, answered = reply.failure.code, time.monotonic(), self._answered[got.endpoint]
        answered_s = None if answered == -math.inf else now - answered
        met = Trouble(got.endpoint, got.job_id, got.attempt, code, now - began, answered_s)
        verdict = await self._batcher.submit(endpoint_trouble.judge, met)
        if verdict.paused:
            self._note_pause(got.endpoint, "trouble", code)
        return verdict

    async def _note_sickness(self, got: Claim, reply: Reply, began: float, now: float) -> None:
        """Count a weak answer, unless its call was in flight when the endpoint last changed."""
        assert reply.failure is not None
        seen = self._seen.get(got.endpoint)
        changed_at = -math.inf if seen is None else self._seen_at - seen.since_s
        if (seen is not None and seen.state is State.paused) or began < changed_at:
            return
        breaker = self._breakers[got.endpoint]
        code = reply.failure.code
        if breaker.sick(got.job_id, now, after=changed_at):
            breaker.clear()
            opened = await self._batcher.submit(endpoint_breaker.open_breaker, BreakerTrip(got.endpoint, code))
        else:
            opened = await self._count_in_a_row(got, code, began, now)
        if opened:
            self._note_pause(got.endpoint, "breaker", code)

    async def _count_in_a_row(self, got: Claim, code: ErrorCode, began: float, now: float) -> bool:
        """Let all workers know of a weak answer where none of ours was better of late: a breaker sees one process."""
        quiet_s = now - self._came[got.endpoint]
        if quiet_s < QUIET_S:
            return False
        known_s = None if quiet_s == math.inf else quiet_s
        return await self._batcher.submit(
            endpoint_breaker.count_in_a_row, FailingCall(got.endpoint, got.job_id, code, now - began, known_s)
        )

    def _note_pause(self, endpoint: str, cause: str, reason: str) -> None:
        log.warning("endpoint.paused", endpoint=endpoint, cause=cause, reason=reason)
        self._wake(PROBE_S)


def _code(reply: Reply) -> str | None:
    return None if reply.failure is None else reply.failure.code
