"""Dead letters: found by queue and reason, put back in one step, deleted in steps of bounded size."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from tests.jobs.store.dead_letters import ID, buried, letter
from tests.store.made import rows
from worker.jobs.store import dead_letters
from worker.jobs.store.dead_letters import DeadLetterFilter


def seqs(engine: Engine, chosen: DeadLetterFilter) -> list[int]:
    with engine.begin() as connection:
        return [one.seq for one in dead_letters.newest(connection, chosen, limit=10)]


def test_a_strangers_letter_does_not_prevent_the_storing_of_another(engine: Engine) -> None:
    buried(engine, letter(queue="\0", reason="\ud800"), letter())
    with engine.begin() as connection:
        assert len(dead_letters.newest(connection, DeadLetterFilter(), limit=10)) == 2


def test_the_newest_come_first_by_queue_reason_and_time(engine: Engine) -> None:
    buried(engine, letter(), letter(queue="submit_v1"), letter(reason="no_task"))
    now = datetime.now(UTC)

    assert seqs(engine, DeadLetterFilter()) == [3, 2, 1]
    assert seqs(engine, DeadLetterFilter(queue="chat.intake")) == [3, 1]
    assert seqs(engine, DeadLetterFilter(queue="chat.intake", reason="not_json")) == [1]
    assert seqs(engine, DeadLetterFilter(before=now - timedelta(hours=1))) == []
    assert len(seqs(engine, DeadLetterFilter(before=now + timedelta(hours=1)))) == 3


def test_a_letter_is_read_with_its_bytes_and_their_number(engine: Engine) -> None:
    buried(engine, letter())

    with engine.begin() as connection:
        found = dead_letters.read(connection, 1)
        assert dead_letters.read(connection, 2) is None

    assert found is not None
    stored, entry = found
    assert (stored.queue, stored.reason, stored.job_id, stored.size, entry) == (
        "chat.intake", "not_json", ID, 2, b"\xff\x00",
    )  # fmt: skip


def test_a_letter_moves_to_the_inbox_once(engine: Engine) -> None:
    buried(engine, letter(queue="submit_v1", entry=b"{}"), letter(queue="submit_v1", entry=b"[]"))

    with engine.begin() as connection:
        assert dead_letters.resubmit(connection, 1, job="{}", job_id=ID)
        assert dead_letters.resubmit(connection, 2, job="[]", job_id=None)
        assert not dead_letters.resubmit(connection, 1, job="{}", job_id=ID)

    moved = rows(engine, "SELECT id, job FROM submit_v1 ORDER BY job")
    assert [row.job for row in moved] == ["[]", "{}"]
    assert str(moved[1].id) == ID
    assert str(moved[0].id) != ID
    assert seqs(engine, DeadLetterFilter()) == []


def test_a_purge_deletes_the_chosen_letters_in_bounded_steps(engine: Engine) -> None:
    buried(engine, *[letter()] * (dead_letters.BATCH + 1), letter(reason="no_task"))
    meant = DeadLetterFilter(reason="not_json")

    with engine.begin() as connection:
        assert dead_letters.count(connection, meant) == dead_letters.BATCH + 1
        steps = [dead_letters.purge(connection, meant) for _ in range(3)]

    assert steps == [dead_letters.BATCH, 1, 0]
    assert len(seqs(engine, DeadLetterFilter())) == 1


def test_the_texts_of_a_letter_are_short_even_if_they_quote_long_ones(engine: Engine) -> None:
    huge = "x" * 8_000_000
    buried(engine, letter()._replace(job_id=huge))

    (found,) = rows(engine, "SELECT length(job_id) AS size FROM afterword_dead_letters")
    assert found.size == 255
