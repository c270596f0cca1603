"""The state of the endpoints as one worker process knows it: answers, failures, pauses. Asked after each call.

Most calls only change attributes here. Trouble, failing calls and the results of probes go to the database, before the
job's own record.
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
    """One per process. `classify` runs on the loop, `exchange` in the dispatcher's thread, `wake` wakes it."""

    def __init__(
        self, engine: Engine, batcher: Batcher, names: Iterable[str], *, wake: Callable[[float], None]
    ) -> None:
        self._engine, self._batcher, self._wake = engine, batcher, wake
        self._breakers = {name: Breaker() for name in names}
        # Monotonic times by endpoint: the begin of the latest answered call, the arrival of the latest answer, and the
        # arrival of the latest answer that is written to the database.
        self._answered = dict.fromkeys(self._breakers, -math.inf)
        self._came = dict(self._answered)
        self._written = dict(self._answered)
        self._rows: Mapping[str, EndpointRow] = {}
        self._read_at = 0.0
        self._is_new = True

    def is_open(self, endpoint: str) -> bool:
        """Say whether jobs of an endpoint start freely; about a second old."""
        row = self._rows.get(endpoint)
        return row is None or row.state is State.open

    def exchange(self) -> None:
        """Write our answers to the database and read the state of all endpoints; called every second.

        The first call lets waiting jobs of our endpoints start soon: our settings may have removed the cause. A job
        that was held alone starts as soon as the others once another job was answered.
        """
        read_at = time.monotonic()
        came = dict(self._came)
        answers = {
            name: Answered(read_at - self._answered[name], read_at - at)
            for name, at in came.items()
            if at > self._written[name]
        }
        with self._engine.begin() as connection:
            endpoints.note_answers(connection, answers)
            rows = endpoints.read_all(connection)
        self._written = came
        self._read_at, self._rows = read_at, rows
        # In another transaction, because the rows above are locked in the order of their names.
        if cleared := [row.name for row in rows.values() if row.is_cleared]:
            with self._engine.begin() as connection:
                if endpoints.clear_suspects(connection, cleared):
                    self._wake(HOLD_S)
        if self._is_new:
            with self._engine.begin() as connection:
                endpoints.try_soon(connection, list(self._breakers))
            self._is_new = False
            self._wake(0.0)

    async def classify(self, claim: Claim, endpoint: Endpoint, reply: Reply) -> Verdict:
        """Note how a call ended; return the owner of its failure."""
        sign = sign_of(reply.failure, timeout_s=min(claim.timeout_s, claim.left_s), total_s=endpoint.total_s)
        now = time.monotonic()
        began = now - reply.elapsed_s
        if claim.probe:
            log.info("endpoint.probed", endpoint=claim.endpoint, answer=sign, error_code=_code(reply))
        try:
            match sign:
                case CallSign.answered:
                    await self._note_answer(claim, began, now)
                case CallSign.trouble:
                    return await self._classify_trouble(claim, reply, began)
                case CallSign.sick if claim.probe:
                    # The endpoint's failure, unless the probe may have been billed and must not be repeated.
                    return Verdict(FailureOwner.endpoint) if reply.failure and reply.failure.retryable else ALONE
                case CallSign.sick:
                    await self._note_failing_call(claim, reply, began, now)
        except Exception as error:
            # The reply must be recorded even if the endpoint's state could not be written.
            log.error("endpoint.not_judged", endpoint=claim.endpoint, **describe(error))
            return Verdict(FailureOwner.endpoint) if sign is CallSign.trouble else ALONE
        return ALONE

    async def _note_answer(self, claim: Claim, began: float, now: float) -> None:
        self._answered[claim.endpoint] = max(self._answered[claim.endpoint], began)
        self._came[claim.endpoint] = now
        self._breakers[claim.endpoint].answered(now)
        if not claim.probe:
            return
        paused_s = await self._batcher.submit(endpoints.resume_probed, ProbeSucceeded(claim.endpoint, now - began))
        if paused_s is not None:
            log.info("endpoint.resumed", endpoint=claim.endpoint, rested_s=round(paused_s, 3))
            self._wake(0.0)

    async def _classify_trouble(self, claim: Claim, reply: Reply, began: float) -> Verdict:
        assert reply.failure is not None
        code, now, answered = reply.failure.code, time.monotonic(), self._answered[claim.endpoint]
        answered_s = None if answered == -math.inf else now - answered
        trouble = Trouble(claim.endpoint, claim.job_id, claim.attempt, code, now - began, answered_s)
        verdict = await self._batcher.submit(endpoint_trouble.note_troubles, trouble)
        if verdict.paused:
            self._report_pause(claim.endpoint, "trouble", code)
        return verdict

    async def _note_failing_call(self, claim: Claim, reply: Reply, began: float, now: float) -> None:
        """Count a failing call, unless it began before the endpoint's last change."""
        assert reply.failure is not None
        row = self._rows.get(claim.endpoint)
        changed_at = -math.inf if row is None else self._read_at - row.since_s
        if (row is not None and row.state is State.paused) or began < changed_at:
            return
        breaker = self._breakers[claim.endpoint]
        code = reply.failure.code
        if breaker.sick(claim.job_id, now, after=changed_at):
            breaker.clear()
            opened = await self._batcher.submit(endpoint_breaker.open_breaker, BreakerTrip(claim.endpoint, code))
        else:
            opened = await self._count_in_a_row(claim, code, began, now)
        if opened:
            self._report_pause(claim.endpoint, "breaker", code)

    async def _count_in_a_row(self, claim: Claim, code: ErrorCode, began: float, now: float) -> bool:
        """Report the call to the shared counter, if this process has had no recent answer.

        The local breaker cannot see the calls of other workers.
        """
        quiet_s = now - self._came[claim.endpoint]
        if quiet_s < QUIET_S:
            return False
        known_s = None if quiet_s == math.inf else quiet_s
        return await self._batcher.submit(
            endpoint_breaker.count_in_a_row, FailingCall(claim.endpoint, claim.job_id, code, now - began, known_s)
        )

    def _report_pause(self, endpoint: str, cause: str, reason: str) -> None:
        log.warning("endpoint.paused", endpoint=endpoint, cause=cause, reason=reason)
        self._wake(PROBE_S)


def _code(reply: Reply) -> str | None:
    return None if reply.failure is None else reply.failure.code
