"""A job and its delivery cost a real worker the figures of tests/counts.py: alone, and in a hundred at once.

The parts count: SQLAlchemy's events in the worker process, Redis' MONITOR, the endpoint's ledger. Work caused by the
clock is not counted: the threads in BY_THE_CLOCK, doorbells that time out (`Ear.counts`), and a dispatcher's tick among
the jobs. A tick only adds commands, and the next tick comes a minute later, so the lowest of several runs is the cost.
"""

import base64
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword import Afterword
from tests.counts import JOB, JOB_AND_DELIVERY, MANY, PRODUCER, SETS, STEPS, WRITES, Life
from tests.flow.heard import Ear, Transaction, counted, hearing, transactions, without_the_clock
from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.receiver import WebhookReceiver
from worker.queue.keys import INTAKE

BY_THE_CLOCK = {"afterword-lease", "afterword-dispatcher"}
WRITERS = {"afterword-writer", "afterword-webhook-writer"}
# The longest intervals that the settings allow, so these threads do almost nothing between a job's start and end.
QUIET = {"tick_s": 60, "beat_s": 60, "lease_s": 3600, "window_s": 60}
ROOM = {"concurrency": 2 * MANY, "webhook_slots": 4 * MANY}
UNSENT = "SELECT 1 FROM webhook_deliveries_v1 WHERE status <> 'delivered'"
REPEATED = 5


class Counted:
    """A counted worker, with a receiver of webhooks if `listens`."""

    def __init__(self, system: System, ear: Ear, receiver: WebhookReceiver, file: Path, *, listens: bool) -> None:
        self._system, self._ear, self._receiver, self._file, self._listens = system, ear, receiver, file, listens
        if listens:
            register(system.engine, receiver.url, in_flight=4 * MANY)
        ear.ignore(system.redis)
        system.variables |= counted(file)
        system.start(**QUIET, **ROOM, **ALLOWED)
        ear.await_rest()
        # The first run loads scripts and opens connections.
        self.run(1)

    def run(self, number: int) -> tuple[list[Transaction], Counter[str], int]:
        """Run `number` jobs that arrive at once; return their transactions, Redis commands and wire requests."""
        heard, ended, asked = len(self._ear.commands), len(transactions(self._file)), self._requests()
        ids = [str(uuid.uuid4()) for _ in range(number)]
        self._system.redis.lpush(INTAKE, *map(message, ids))
        self._system.await_all(ids)
        until(lambda: not self._system.rows(UNSENT), what="the deliveries")
        self._ear.await_rest()
        mine = [one for one in transactions(self._file)[ended:] if one.thread not in BY_THE_CLOCK]
        return mine, self._ear.counts(since=heard), self._requests() - asked

    def _requests(self) -> int:
        return int(self._system.fake.stats()["requests"]) + len(self._receiver.received)


@pytest.mark.parametrize(
    ("letters", "caused"),
    [
        ("tdtw", "tdtw"),
        ("llllllllllttwtdtw", "tdtw"),
        ("tdtwllllllllllttwllllllllllttw", "tdtw"),
        # The entry arrives during LLEN, before the first TAKE, or before the second TAKE.
        ("ltdtw", "tdtw"),
        ("lllllllllltdtw", "tdtw"),
        ("llllllllllttdtw", "tdtw"),
        ("por", "por"),
        ("orporor", "por"),
        # The nudge arrives between an empty POP and the BRPOP, which returns at once.
        ("opror", "opr"),
        # There was room for more than one POP.
        ("poor", "poor"),
    ],
)
def test_commands_after_a_timeout_are_no_cost(letters: str, caused: str) -> None:
    assert without_the_clock(letters) == caused


def message(job_id: str) -> str:
    """Return a message as a Celery client pushes it."""
    body = json.dumps([[{"request": request()}], {}, {}])
    return json.dumps({
        "body": base64.b64encode(body.encode()).decode(), "content-type": "application/json",
        "content-encoding": "utf-8", "headers": {"task": "chat.submit", "id": job_id},
        "properties": {"body_encoding": "base64"},
    })  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as made:
        yield made


@pytest.fixture
def ear(system: System) -> Iterator[Ear]:
    with hearing(system.redis_url) as made:
        yield made


def least(counters: list[Counter[str]]) -> dict[str, int]:
    found = counters[0]
    for one in counters[1:]:
        found &= one
    return dict(found)


def threads(made: list[Transaction]) -> dict[str, int]:
    return dict(Counter(one.thread for one in made))


def assert_costs(runs: list[tuple[list[Transaction], Counter[str], int]], life: Life) -> None:
    for made, _, requests in runs:
        steps = [one.cost.statements for one in made]
        assert (len(steps), sum(steps), requests) == (life.transactions, life.statements, life.requests), made
        by_thread = threads(made)
        assert (by_thread.pop("afterword-intake"), by_thread.keys() <= WRITERS) == (1, True)
        assert sum(by_thread.values()) == life.transactions - 1
    assert least([commands for _, commands, _ in runs]) == life.redis


def test_a_job_alone_costs_the_figures_of_the_table(
    system: System, ear: Ear, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    worker = Counted(system, ear, receiver, tmp_path / "counted", listens=False)

    runs = [worker.run(1) for _ in range(REPEATED)]

    assert_costs(runs, JOB)
    for made, _, _ in runs:
        assert [one.cost for one in made] == [STEPS[name].alone for name in ("accept", "claim", "record completed")]


def test_a_job_and_its_delivery_cost_the_figures_of_the_table(
    system: System, ear: Ear, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    worker = Counted(system, ear, receiver, tmp_path / "counted", listens=True)

    runs = [worker.run(1) for _ in range(REPEATED)]

    assert_costs(runs, JOB_AND_DELIVERY)
    for made, _, _ in runs:
        assert [one.cost for one in made] == [STEPS[name].alone for name in ("accept", *WRITES)]


def test_a_hundred_jobs_at_once_cost_no_more_than_a_hundred_alone(
    system: System, ear: Ear, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    worker = Counted(system, ear, receiver, tmp_path / "counted", listens=True)

    runs = [worker.run(MANY) for _ in range(3)]

    for made, commands, requests in runs:
        assert requests == MANY * JOB_AND_DELIVERY.requests
        accepts = [one.cost for one in made if one.thread == "afterword-intake"]
        assert accepts == [STEPS["accept"].many]
        writes = [one for one in made if one.thread in WRITERS]
        assert len(made) == len(accepts) + len(writes), threads(made)
        assert len(writes) <= MANY * (JOB_AND_DELIVERY.transactions - 1)
        assert {one.distinct for one in writes} <= shapes(), writes
        assert sets(writes) == {statement: MANY * each for statement, each in SETS.items()}
        # More than for one job, because deliveries are queued a few at a time.
        assert all(commands[f"{name} webhooks"] <= MANY for name in ("PUSH", "POP", "BRPOP"))
    before_calls = {name: number for name, number in JOB_AND_DELIVERY.redis.items() if not name.endswith("webhooks")}
    heard = least([commands for _, commands, _ in runs])
    assert {name: number for name, number in heard.items() if not name.endswith("webhooks")} == before_calls


def shapes() -> set[int]:
    """Return the possible numbers of different statements in a transaction of the writer."""
    alone = {name: STEPS[name].alone.statements for name in WRITES}
    together = alone["claim"] + alone["record completed, a receiver listens"] - 1
    return {*alone.values(), together}


def sets(made: list[Transaction]) -> dict[str, int]:
    """Return the number of parameter sets for each statement of SETS."""
    found: Counter[str] = Counter()
    for transaction in made:
        for statement in transaction.statements:
            found[" ".join(statement.text.split()[: 3 if statement.text.startswith("INSERT") else 2])] += statement.sets
    return {statement: found[statement] for statement in SETS}


def test_submitting_costs_a_producer_the_figures_of_the_table(postgres_system: System, tmp_path: Path) -> None:
    system = postgres_system
    with hearing(system.redis_url) as heard, Afterword(system.redis_url) as client:
        heard.ignore(system.redis)
        client.submit(request())
        until(lambda: "LPUSH" in {command.name for command in heard.commands}, what="the first submission")
        before = len(heard.commands)

        for _ in range(MANY):
            client.submit(request())

        until(lambda: len(heard.commands) - before >= MANY, what="the commands")
        assert heard.counts(since=before) == {name: MANY * each for name, each in PRODUCER.items()}
