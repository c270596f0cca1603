"""Times on the command line: RFC 3339, durations, plain seconds, and the sentence for everything else."""

from datetime import UTC, datetime, timedelta

import click
import pytest
from sqlalchemy import Engine, select, update

from tests.cli import tree
from tests.cli.conftest import Command
from tests.store.made import accept_all, entry, job, one
from worker.cli.support.times import Duration, InstantOption, at
from worker.cli.webhooks.recoveries import recover
from worker.store.clock import from_now
from worker.store.tables import jobs

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SINCE = click.Option(["--since"])


@pytest.mark.parametrize(
    ("text", "ahead", "expected"),
    [
        ("2026-11-24T03:00:00Z", False, datetime(2026, 11, 24, 3, tzinfo=UTC)),
        ("2026-11-24t05:00:00.5+02:00", True, datetime(2026, 11, 24, 3, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-24 03:00+00:00", True, datetime(2026, 11, 24, 3, tzinfo=UTC)),
        ("6h", False, NOW - timedelta(hours=6)),
        ("6h", True, NOW + timedelta(hours=6)),
        ("1.5d", False, NOW - timedelta(hours=36)),
        ("0s", False, NOW),
        ("99999d", False, NOW - timedelta(days=99999)),
    ],
)
def test_an_instant_is_a_time_or_its_distance_from_now(text: str, ahead: bool, expected: datetime) -> None:
    assert at(InstantOption(ahead=ahead).convert(text, SINCE, None), NOW) == expected


@pytest.mark.parametrize("text", ["soon", "", "2026", "90", "2026-11-24", "2026-11-24T03:00:00", "6w", "999999d"])
def test_another_text_is_refused_with_the_value_and_the_remedy(text: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        InstantOption().convert(text, SINCE, None)
    assert raised.value.message == (
        f"--since is {text!r}; write a time such as 2026-11-24T03:00:00Z, or how long ago it was, such as 6h"
    )


def test_a_bare_number_is_in_seconds_where_it_always_was() -> None:
    assert InstantOption(bare=True).convert("90", SINCE, None) == timedelta(seconds=-90)


def test_an_empty_end_of_a_recovery_is_the_default_as_in_earlier_releases() -> None:
    assert InstantOption(bare=True, blank=True).convert("", SINCE, None) is None
    until = next(option for option in recover.params if option.name == "until")
    assert until.type.convert("", until, None) is None


@pytest.mark.parametrize(("text", "sentence"), [("soon", "write seconds, or"), ("11m", "it must be at least 0 and")])
def test_a_duration_out_of_bounds_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(click.UsageError, match=f"--wait is '{text}'; {sentence}"):
        Duration(low=0, high=600).convert(text, click.Option(["--wait"]), None)


TIMES = {
    "submit": ["--wait 5m", "--not-before 30m", "--deadline 2d"],
    "wait": ["--timeout 5m"],
    "jobs update": ["--deadline 6h"],
    "dead-letters purge": ["--before 30d"],
    "verify": ["--grace 2m"],
    "demo": ["--timeout 5m"],
    "inspect": ["--timeout 5s"],
    "webhooks add": ["--timeout 20s"],
    "webhooks update": ["--timeout 20s"],
    "webhooks change": ["--timeout 20s"],
    "webhooks test": ["--wait 2m"],
    "webhooks rotate": ["--overlap 7d"],
    "webhooks enable": ["--resume 6h"],
    "webhooks recover": ["--since 2d", "--until 6h"],
}
ASKS_FOR_TIME = {"timeout", "wait", "grace", "overlap", "resume", "since", "until", "before", "not-before", "deadline"}


def test_every_option_for_a_time_takes_a_duration() -> None:
    found = {
        " ".join(node.words): sorted(
            option.opts[0]
            for option in node.command.params
            if isinstance(option, click.Option) and option.opts[0].removeprefix("--") in ASKS_FOR_TIME
        )
        for node in tree.nodes(hidden=True)
    }
    listed = {command: sorted(text.split()[0] for text in texts) for command, texts in TIMES.items()}
    assert {command: options for command, options in found.items() if options} == listed


@pytest.mark.parametrize(("command", "text"), [(name, text) for name, texts in TIMES.items() for text in texts])
def test_a_duration_is_read_by(command: str, text: str) -> None:
    option, value = text.split()
    found = tree.find(*command.split())
    (parameter,) = [one for one in found.params if option in one.opts]
    read = parameter.type.convert(value, parameter, click.Context(found))
    assert isinstance(read, float | timedelta)


def test_a_filter_with_a_duration_counts_from_the_databases_clock(
    afterword: Command, database_url: str, engine: Engine
) -> None:
    accept_all(engine, entry(job(batch="old")), entry(job(batch="new")))
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.batch == "old").values(created_at=from_now(-7 * 3600.0)))

    settings = {"AFTERWORD_DATABASE_URL": database_url}
    assert afterword("cancel", "--where", "created_before=6h", settings=settings).stdout == "1 jobs cancelled\n"

    assert one(engine, "SELECT batch FROM jobs_v1 WHERE status = 'cancelled'").batch == "old"


def test_a_deadline_may_be_given_as_a_distance(afterword: Command, database_url: str, engine: Engine) -> None:
    accept_all(engine, entry(job(batch="b")))
    words = ["jobs", "update", "--where", "batch=b", "--deadline", "2d"]
    assert afterword(*words, settings={"AFTERWORD_DATABASE_URL": database_url}).stdout == "1 jobs changed\n"
    with engine.connect() as connection:
        row = connection.execute(select(jobs.c.deadline, jobs.c.created_at)).one()
    assert timedelta(days=2) < row.deadline - row.created_at < timedelta(days=2, minutes=5)
