"""VERIFY: a database that our own code wrote is sound, and each rule reports the damage that it guards against."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, Executable, bindparam, delete, insert, text, update

from tests.jobs.store.attempts import BARE, attempt_record, completed, started, write
from tests.store.broken import broken, hurt, look
from tests.store.made import accept_all, claim_one, entry, job, worker
from tests.verify.webhook_breaks import WEBHOOK_BREAKS
from worker.core.lifecycle import CANCEL, FAIL, HOLD, RETRY, Outcome
from worker.jobs.store import cancel, reclaim
from worker.store import leases
from worker.store.clock import from_now, now
from worker.store.engine import open_engine
from worker.store.tables import (
    aliases,
    answers,
    attempts,
    cancellations,
    counters,
    dead_letters,
    endpoints,
    finished,
    jobs,
    requests,
    workers,
)  # fmt: skip
from worker.store.types import Id
from worker.verify.rules import RULES

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


@dataclass
class World:
    """A database with a job of each kind; `hurt` damages it."""

    engine: Engine
    mine: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> str:
        return self.ids[name]

    def hurt(self, *statements: Executable) -> None:
        hurt(self.engine, *statements)


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine, worker(engine))
    done, failed, cut = (started(engine, made.mine, idempotency_key=key) for key in ("done", "failed", "cut"))
    write(
        engine,
        attempt_record(done, completed(done).move, Outcome.completed, **USAGE),
        attempt_record(failed, FAIL, Outcome.failed, **BARE),
        attempt_record(cut, CANCEL, Outcome.cancelled, **USAGE),
    )
    tried = started(engine, made.mine, max_attempts=2)
    write(engine, attempt_record(tried, RETRY, Outcome.failed, delay_s=60.0, **BARE))
    runs = started(engine, made.mine)
    waits, refused, twin = entry(), entry({"request": {}}), entry(job(idempotency_key="done"))
    accept_all(engine, waits, refused, twin)
    made.ids = {
        "done": done.job_id, "failed": failed.job_id, "cut": cut.job_id, "tried": tried.job_id, "runs": runs.job_id,
        "waits": waits.job.id, "refused": refused.job.id, "twin": twin.job.id,
    }  # fmt: skip
    return made


def test_rows_of_our_own_code_are_sound(world: World) -> None:
    report = look(world.engine)

    assert report.broken == ()
    assert report.jobs == 7
    assert len(report.findings) == sum(len(table.checks) for table in RULES)
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


def request_cancel(job_id: str) -> Executable:
    return insert(cancellations).values(id=job_id, created_at=now())


TROUBLE: dict[str, Any] = {
    "state": "paused", "cause": "trouble", "reason": "unauthorized", "probe_at": from_now(5.0),
}  # fmt: skip


BILLED_TROUBLE = {"trouble": "endpoint", "billed": "unknown"}


def endpoint(**values: Any) -> Executable:
    return insert(endpoints).values(**{"name": "resting", "since": now(), **values})


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
    ("budget_is_kept", "tried", lambda w: [attempt_of(w.tried, **BILLED_TROUBLE), of(w.tried, attempts_used=0)]),
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
    ("counter_knows_every_number", "finished", lambda w: [update(counters).values(value=3)]),
    ("counter_knows_every_number", "finished", lambda w: [update(counters).values(value=9)]),
    ("counter_knows_every_number", "finished", lambda w: [delete(finished).where(finished.c.job_id == w.done)]),
    ("cancellations_are_served", "cut", lambda w: [request_cancel(w.cut)]),
    ("cancellations_are_served", "waits", lambda w: [request_cancel(w.waits)]),
    ("cancellations_are_served", "runs", lambda w: [request_cancel(w.runs)]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(state="paused")]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(state="open", cause="operator")]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(**TROUBLE | {"probe_at": None})]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(state="paused", cause="operator", probe_at=now())]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(state="open", suspect_job=NOBODY)]),
    ("rest_has_a_cause", "resting", lambda w: [endpoint(**TROUBLE, sick_jobs="[]")]),
    ("probes_are_jobs", "resting", lambda w: [endpoint(**TROUBLE, probe_job=NOBODY)]),
    ("rest_is_probed", "resting", lambda w: [
        endpoint(**TROUBLE | {"probe_at": from_now(-1.0)}), of(w.waits, endpoint="resting")
    ]),
    ("slow_start_ends", "resting", lambda w: [endpoint(state="slow", since=from_now(-60.0))]),
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
def test_a_rule_names_the_damaged_row(world: World, rule: str, whose: str, hand: Hand) -> None:
    world.hurt(*hand(world))

    found = broken(world.engine)

    expected = {"mine": world.mine, "finished": "finished", "resting": "resting"}.get(whose) or world.ids[whose]
    assert rule in found, sorted(found)
    assert expected in {key for key, _ in found[rule].first}
    assert found[rule].broken == len(found[rule].first)


def test_every_rule_is_broken_by_a_test() -> None:
    hands = [*BREAKS, *WEBHOOK_BREAKS]
    assert {check.__name__ for table in RULES for check in table.checks} == {rule for rule, _, _ in hands}


def order(engine: Engine, view: str, job_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {view} (id) VALUES (:id)").bindparams(bindparam("id", job_id, Id)))


@pytest.mark.parametrize("whose", ["failed", "cut"])
def test_a_replayed_job_restarts_its_count_and_leaves_a_gap_in_the_feed(world: World, whose: str) -> None:
    order(world.engine, "replay_v1", world.ids[whose])
    assert broken(world.engine) == {}

    # The newest feed number disappears with its job, and the counter stays.
    again = claim_one(world.engine, world.mine, world.ids[whose])
    assert again is not None
    assert broken(world.engine) == {}
    write(world.engine, attempt_record(again, completed(again).move, Outcome.completed, **USAGE))
    assert broken(world.engine) == {}


def test_the_answer_of_a_lost_worker_may_come_before_its_job_is_replayed(engine: Engine) -> None:
    lost = worker(engine)
    claimed = started(engine, lost, max_attempts=1)
    with engine.begin() as connection:
        connection.execute(update(workers).values(lease_until=from_now(-1.0)))
        reclaim.take_back(connection)
    write(engine, attempt_record(claimed, completed(claimed).move, Outcome.completed, **USAGE))
    assert broken(engine) == {}

    order(engine, "replay_v1", claimed.job_id)

    assert broken(engine) == {}


def test_jobs_cancelled_by_the_door_are_numbered_within_the_grace(world: World) -> None:
    order(world.engine, "cancel_v1", world.waits)
    order(world.engine, "cancel_v1", world.runs)
    order(world.engine, "cancel_v1", NOBODY)

    assert set(broken(world.engine)) == {"cancellations_are_served"}

    order(world.engine, "replay_v1", world.waits)
    order(world.engine, "cancel_v1", world.waits)

    def settle(_: float) -> None:
        with world.engine.begin() as connection:
            assert cancel.apply_cancel_requests(connection, keep_s=60.0).cancelled == {world.waits}

    assert broken(world.engine, pause=settle) == {}


def test_a_request_that_the_endpoints_trouble_refused_is_free(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    held: dict[str, Any] = {"counts": False, "waiting_for": "endpoint_paused", "delay_s": 5.0}
    write(engine, attempt_record(claimed, HOLD, Outcome.failed, **held, **BARE))

    assert broken(engine) == {}


def test_a_difference_in_the_usage_is_reported(world: World) -> None:
    world.hurt(attempt_of(world.done, prompt_tokens=4))

    ((_, wrong),) = broken(world.engine)["usage_is_what_was_reported"].first
    assert wrong == "attempt 1: prompt_tokens is 4, the object says 3"


def test_zeros_beside_an_answer_count_as_no_report(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    zeros = b'{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}'
    answer = {**USAGE["answer"], "usage_raw": zeros, "response": '{"choices": [{"message": {"content": "hi"}}]}'}
    attempt = {"billed": "yes", "usage_requested": True, "usage_source": "top", "usage_flags": '["all_zero"]'}
    write(engine, attempt_record(claimed, completed(claimed).move, Outcome.completed, attempt=attempt, answer=answer))

    assert broken(engine) == {}


def test_damage_repaired_within_the_grace_breaks_no_rule(world: World) -> None:
    world.hurt(update(workers).values(lease_until=from_now(-1.0)))

    def mend(seconds: float) -> None:
        assert seconds == 5.0
        with world.engine.begin() as connection:
            reclaim.take_back(connection)

    assert broken(world.engine, pause=mend) == {}


def test_another_attempt_that_lost_its_holder_is_not_mistaken_for_the_first(world: World) -> None:
    world.hurt(update(workers).values(lease_until=from_now(-1.0)))

    def mend_and_lose_again(_: float) -> None:
        with world.engine.begin() as connection:
            reclaim.take_back(connection)
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
def test_every_row_is_checked_once_for_any_span(world: World, span: int) -> None:
    world.hurt(*(delete(requests).where(requests.c.job_id == job_id) for job_id in world.ids.values()))

    assert broken(world.engine, span=span)["request_is_kept"].broken == 7


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
