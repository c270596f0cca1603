"""VERIFY: a database that our own code wrote is sound, and each rule names what a hand has broken."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, Executable, delete, insert, text, update

from tests.store.made import accept_all, claim_one, entry, job, rows, worker
from tests.store.receiving import claimed, receiver
from tests.store.test_attempts import closing, completed, started, write
from worker.core.lifecycle import CANCEL, FAIL, RETRY, Outcome
from worker.store import leases, webhook_dispatch
from worker.store.checks import WALKS
from worker.store.clock import from_now, now
from worker.store.engine import open_engine
from worker.store.tables import (
    aliases,
    answers,
    attempts,
    counters,
    dead_letters,
    finished,
    jobs,
    requests,
    workers,
)  # fmt: skip
from worker.store.verify import Finding, Report, verify
from worker.store.webhook_tables import deliveries, delivery_attempts, events, receivers

NOBODY = "00000000-0000-4000-8000-000000000000"
USAGE: dict[str, Any] = {
    "attempt": {
        "billed": "yes", "usage_requested": True, "usage_source": "top", "usage_flags": "[]", "prompt_tokens": 3,
        "completion_tokens": 1,
        "total_tokens": 4,
    },
    "answer": {
        "raw": b"{}", "raw_encoding": "identity",
        "usage_raw": b'{"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}',
    },
}  # fmt: skip
BARE: dict[str, Any] = {"attempt": {"billed": "no", "usage_requested": False}, "answer": None}


@dataclass
class World:
    """A database with a job of each kind; `broken` what a hand does to it."""

    engine: Engine
    mine: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> str:
        return self.ids[name]

    def hurt(self, *statements: Executable) -> None:
        """Do what no code of ours does: the constraints are lifted for it."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(text("PRAGMA ignore_check_constraints = ON"))
            else:
                for name in ("status", "holder", "finish", "answer"):
                    connection.execute(text(f"ALTER TABLE afterword_jobs DROP CONSTRAINT afterword_jobs_{name}"))
            for statement in statements:
                connection.execute(statement)
            if connection.dialect.name == "sqlite":
                connection.execute(text("PRAGMA ignore_check_constraints = OFF"))


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine, worker(engine))
    done, failed, cut = (started(engine, made.mine, idempotency_key=key) for key in ("done", "failed", "cut"))
    write(
        engine,
        closing(done, completed(done).move, Outcome.completed, **USAGE),
        closing(failed, FAIL, Outcome.failed, **BARE),
        closing(cut, CANCEL, Outcome.cancelled, **USAGE),
    )
    tried = started(engine, made.mine, max_attempts=2)
    write(engine, closing(tried, RETRY, Outcome.failed, delay_s=60.0, **BARE))
    receiver(engine)
    told = started(engine, made.mine, webhook={"to": "billing"})
    write(engine, closing(told, completed(told).move, Outcome.completed, **USAGE))
    ((sending,),) = rows(engine, "SELECT id FROM webhook_deliveries_v1")
    assert claimed(engine, made.mine, str(sending)) is not None
    runs = started(engine, made.mine)
    waits, refused, twin = entry(), entry({"request": {}}), entry(job(idempotency_key="done"))
    accept_all(engine, waits, refused, twin)
    made.ids = {
        "done": done.job_id, "failed": failed.job_id, "cut": cut.job_id, "tried": tried.job_id, "runs": runs.job_id,
        "waits": waits.job.id, "refused": refused.job.id, "twin": twin.job.id, "told": told.job_id,
        "sending": str(sending), "event": str(rows(engine, "SELECT id FROM afterword_events")[0].id),
    }  # fmt: skip
    return made


def look(engine: Engine, *, span: int = 2, pause: Callable[[float], object] = lambda seconds: None) -> Report:
    return verify(engine, grace_s=5.0, span=span, pause=pause)


def broken(engine: Engine, **options: Any) -> dict[str, Finding]:
    return {one.name: one for one in look(engine, **options).broken}


def test_what_our_own_code_wrote_is_sound(world: World) -> None:
    report = look(world.engine)

    assert report.broken == ()
    assert report.jobs == 8
    assert len(report.findings) == sum(len(walk.checks) for walk in WALKS)
    assert all(one.rule.endswith(".") or ":" in one.rule for one in report.findings)


def test_a_database_without_a_row_is_sound(engine: Engine) -> None:
    assert look(engine).broken == ()


def of(job_id: str, **values: Any) -> Executable:
    return update(jobs).where(jobs.c.id == job_id).values(**values)


def attempt_of(job_id: str, **values: Any) -> Executable:
    return update(attempts).where(attempts.c.job_id == job_id).values(**values)


def another_attempt(job_id: str, number: int, **values: Any) -> Executable:
    closed = {"outcome": "failed", "finished_at": now(), "endpoint": "default", "worker_id": NOBODY, "billed": "no"}
    return insert(attempts).values(**{"job_id": job_id, "attempt": number, **closed, **values})


Hand = Callable[[World], list[Executable]]
BREAKS: list[tuple[str, str, Hand]] = [
    ("status_is_known", "waits", lambda w: [of(w.waits, status="lost")]),
    ("only_running_jobs_are_held", "waits", lambda w: [of(w.waits, worker_id=w.mine)]),
    ("only_running_jobs_are_held", "runs", lambda w: [of(w.runs, worker_id=None)]),
    ("holder_lives", "runs", lambda w: [delete(workers)]),
    ("holder_lives", "runs", lambda w: [update(workers).values(lease_until=from_now(-1.0))]),
    ("deadline_is_kept", "waits", lambda w: [of(w.waits, deadline=from_now(-1.0))]),
    ("deadline_is_kept", "runs", lambda w: [of(w.runs, deadline=from_now(-1.0))]),
    ("cancellation_is_heard", "waits", lambda w: [of(w.waits, cancel_requested_at=now())]),
    ("finish_is_dated", "done", lambda w: [of(w.done, finished_at=None)]),
    ("finish_is_dated", "waits", lambda w: [of(w.waits, finished_at=now())]),
    ("feed_has_what_is_final", "done", lambda w: [delete(finished).where(finished.c.job_id == w.done)]),
    ("feed_has_what_is_final", "waits", lambda w: [insert(finished).values(cursor=99, job_id=w.waits)]),
    ("request_is_kept", "waits", lambda w: [delete(requests).where(requests.c.job_id == w.waits)]),
    ("attempts_are_numbered", "tried", lambda w: [of(w.tried, attempt=2)]),
    ("attempts_are_numbered", "tried", lambda w: [attempt_of(w.tried, attempt=2), of(w.tried, attempt=2)]),
    ("attempts_are_numbered", "tried", lambda w: [another_attempt(w.tried, 0)]),
    ("attempts_are_numbered", "waits", lambda w: [another_attempt(w.waits, 1)]),
    ("running_jobs_have_an_open_attempt", "runs", lambda w: [attempt_of(w.runs, worker_id=NOBODY)]),
    ("budget_is_kept", "done", lambda w: [of(w.done, attempts_used=0)]),
    ("budget_is_kept", "done", lambda w: [of(w.done, attempts_used=2)]),
    ("budget_is_kept", "failed", lambda w: [of(w.failed, max_attempts=0)]),
    ("budget_is_kept", "tried", lambda w: [of(w.tried, max_attempts=1)]),
    ("answer_is_kept", "done", lambda w: [delete(answers).where(answers.c.job_id == w.done)]),
    ("answer_is_kept", "done", lambda w: [update(answers).where(answers.c.job_id == w.done).values(raw=b"")]),
    ("answer_is_kept", "done", lambda w: [attempt_of(w.done, outcome="failed")]),
    ("answer_is_kept", "done", lambda w: [of(w.done, answer_attempt=None)]),
    ("answer_is_kept", "done", lambda w: [attempt_of(w.done, sent_at=None)]),
    ("answer_is_kept", "failed", lambda w: [of(w.failed, answer_attempt=1)]),
    ("answer_is_used", "tried", lambda w: [attempt_of(w.tried, outcome="completed")]),
    ("open_attempts_are_held", "tried", lambda w: [attempt_of(w.tried, outcome=None, finished_at=None)]),
    ("open_attempts_are_held", "runs", lambda w: [of(w.runs, status="queued", worker_id=None)]),
    ("attempts_have_a_job", "done", lambda w: [delete(jobs).where(jobs.c.id == w.done)]),
    ("answers_have_an_attempt", "done", lambda w: [delete(attempts).where(attempts.c.job_id == w.done)]),
    ("requests_have_a_job", "waits", lambda w: [delete(jobs).where(jobs.c.id == w.waits)]),
    ("aliases_lead_to_a_job", "twin", lambda w: [update(aliases).values(job_id=NOBODY)]),
    ("finished_jobs_exist", "refused", lambda w: [delete(jobs).where(jobs.c.id == w.refused)]),
    ("ended_leases_are_struck", "mine", lambda w: [update(workers).values(lease_until=from_now(-1.0))]),
    ("counter_is_the_last_number", "finished", lambda w: [update(counters).values(value=3)]),
    ("events_have_deliveries", "event", lambda w: [delete(deliveries)]),
    ("events_have_a_job", "event", lambda w: [update(events).values(job_id=NOBODY)]),
    ("deliveries_lead_somewhere", "sending", lambda w: [delete(events)]),
    ("deliveries_lead_somewhere", "sending", lambda w: [delete(receivers)]),
    ("delivery_holder_lives", "sending", lambda w: [delete(workers)]),
    ("delivery_deadline_is_kept", "sending", lambda w: [
        update(deliveries).values(status="queued", worker_id=None, deadline=from_now(-1.0))
    ]),
    ("deliveries_in_progress_have_an_open_attempt", "sending", lambda w: [
        update(delivery_attempts).values(worker_id=NOBODY)
    ]),
    ("delivery_attempts_are_numbered", "sending", lambda w: [update(deliveries).values(attempt=2)]),
    ("delivery_attempts_are_numbered", "sending", lambda w: [
        update(deliveries).values(attempt=2), update(delivery_attempts).values(attempt=2)
    ]),
    ("open_delivery_attempts_are_held", "sending", lambda w: [
        update(deliveries).values(status="queued", worker_id=None)
    ]),
    ("usage_is_what_was_reported", "done", lambda w: [attempt_of(w.done, prompt_tokens=4)]),
    ("usage_is_what_was_reported", "cut", lambda w: [attempt_of(w.cut, total_tokens=None)]),
    ("usage_is_what_was_reported", "failed", lambda w: [attempt_of(w.failed, prompt_tokens=0)]),
    ("usage_is_what_was_reported", "done", lambda w: [attempt_of(w.done, reported_cost=1)]),
    ("usage_is_what_was_reported", "done", lambda w: [
        update(answers).where(answers.c.job_id == w.done)
        .values(usage_raw=b'{"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 5}'),
        attempt_of(w.done, total_tokens=5),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "whose", "hand"), BREAKS, ids=[f"{n}-{one[0]}" for n, one in enumerate(BREAKS)])
def test_a_rule_names_what_a_hand_has_broken(world: World, rule: str, whose: str, hand: Hand) -> None:
    world.hurt(*hand(world))

    found = broken(world.engine)

    expected = {"mine": world.mine, "finished": "finished"}.get(whose) or world.ids[whose]
    assert rule in found, sorted(found)
    assert expected in {key for key, _ in found[rule].first}
    assert found[rule].broken == len(found[rule].first)


def test_every_rule_is_broken_by_a_test() -> None:
    assert {check.__name__ for walk in WALKS for check in walk.checks} == {rule for rule, _, _ in BREAKS}


def test_what_differs_in_the_usage_is_said(world: World) -> None:
    world.hurt(attempt_of(world.done, prompt_tokens=4))

    ((_, wrong),) = broken(world.engine)["usage_is_what_was_reported"].first
    assert wrong == "attempt 1: prompt_tokens is 4, the object says 3"


def test_zeros_beside_an_answer_count_as_no_report(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    zeros = b'{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}'
    answer = {**USAGE["answer"], "usage_raw": zeros, "response": '{"choices": [{"message": {"content": "hi"}}]}'}
    told = {"billed": "yes", "usage_requested": True, "usage_source": "top", "usage_flags": '["all_zero"]'}
    write(engine, closing(claimed, completed(claimed).move, Outcome.completed, attempt=told, answer=answer))

    assert broken(engine) == {}


def test_what_is_mended_within_the_grace_is_no_offence(world: World) -> None:
    world.hurt(update(workers).values(lease_until=from_now(-1.0)))

    def mend(seconds: float) -> None:
        assert seconds == 5.0
        with world.engine.begin() as connection:
            leases.take_back(connection)
            webhook_dispatch.take_back(connection)

    assert broken(world.engine, pause=mend) == {}


def test_another_attempt_that_lost_its_holder_meanwhile_is_not_the_one_that_was_seen(world: World) -> None:
    world.hurt(update(workers).values(lease_until=from_now(-1.0)))

    def mend_and_lose_again(_: float) -> None:
        with world.engine.begin() as connection:
            leases.take_back(connection)
            webhook_dispatch.take_back(connection)
        second = worker(world.engine)
        assert claim_one(world.engine, second, world.runs) is not None
        with world.engine.begin() as connection:
            leases.resign(connection, second)

    assert broken(world.engine, pause=mend_and_lose_again) == {}


def test_only_the_first_offenders_are_named_and_all_are_counted(engine: Engine) -> None:
    accept_all(engine, *(entry() for _ in range(30)))
    with engine.begin() as connection:
        connection.execute(delete(requests))

    found = broken(engine, span=7)["request_is_kept"]

    assert (found.broken, len(found.first), len({key for key, _ in found.first})) == (30, 20, 20)


@pytest.mark.parametrize("span", [1, 2, 3, 1000])
def test_every_row_is_looked_at_once_whatever_the_span(world: World, span: int) -> None:
    world.hurt(*(delete(requests).where(requests.c.job_id == job_id) for job_id in world.ids.values()))

    assert broken(world.engine, span=span)["request_is_kept"].broken == 8


def test_a_look_takes_no_lock_that_writers_want(world: World, database_url: str) -> None:
    reader = open_engine(database_url, reading=True)

    def write_meanwhile(_: float) -> None:
        with world.engine.begin() as connection:
            connection.execute(
                insert(dead_letters).values(queue="q", reason="r", message="m", entry=b"", created_at=now())
            )

    world.hurt(update(workers).values(lease_until=from_now(-1.0)))
    try:
        assert "holder_lives" in broken(reader, pause=write_meanwhile)
    finally:
        reader.dispose()
