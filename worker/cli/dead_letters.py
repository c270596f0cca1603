"""Commands on dead letters: what could become nothing, with its bytes and the reason."""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from worker.cli import main, output
from worker.cli.database import reader, writer
from worker.cli.job_actions import usage
from worker.cli.jobs import script
from worker.jobs.core.filter import instant
from worker.settings import Settings, load, need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.jobs.store.dead_letters import LetterFilter, StoredLetter

COLUMNS = ["seq", "created_at", "queue", "reason", "job_id", "size", "message"]
INBOX = "submit_v1"
LISTS = ("chat.intake", "chat.run", "webhooks")
of_queue = click.option("--queue", help="Only letters found there: chat.intake, submit_v1, chat.run, webhooks.")
of_reason = click.option("--reason", help="Only letters of this reason.")


class CannotRequeue(ValueError):
    """A letter stays where it is; the text says why."""


@main.group("dead-letters")
def dead_letters() -> None:
    """Look at what could not be read, put it back or delete it."""


@dead_letters.command("list")
@of_queue
@of_reason
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@script
def list_(queue: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List the newest dead letters."""
    from worker.jobs.store import dead_letters as letters

    with reader(load()) as engine, engine.connect() as connection:
        found = [_plain(one) for one in letters.newest(connection, letters.LetterFilter(queue, reason), limit=limit)]
    if as_json:
        output.as_json(found)
    else:
        output.echo(output.rows(COLUMNS, found) if found else "no dead letters")


@dead_letters.command()
@click.argument("seq", type=int)
@script
def show(seq: int, as_json: bool) -> None:
    """Print a dead letter and its bytes, as text where they are UTF-8, else in base64."""
    with reader(load()) as engine:
        letter, entry = _letter(engine, seq)
    try:
        told = _plain(letter) | {"entry": entry.decode()}
    except UnicodeDecodeError:
        told = _plain(letter) | {"entry_base64": base64.b64encode(entry).decode()}
    output.as_json(told) if as_json else output.echo(output.fields(told))


@dead_letters.command()
@click.argument("seqs", nargs=-1, type=int, metavar="SEQ...")
@of_queue
@of_reason
@script
def requeue(seqs: tuple[int, ...], queue: str | None, reason: str | None, as_json: bool) -> None:
    """Put dead letters back where they came from, by their numbers or all of a queue or reason.

    Exit code 3: one of them cannot be put back and stays.
    """
    from worker.jobs.store.dead_letters import LetterFilter

    if bool(seqs) == bool(queue or reason):
        raise click.UsageError("give the numbers of dead letters, or --queue or --reason")
    settings, done, stay = load(), 0, []
    with writer(settings) as engine:
        for seq in seqs or _all(engine, LetterFilter(queue, reason)):
            try:
                done += _put_back(engine, settings, seq)
            except CannotRequeue as error:
                stay.append({"seq": seq, "reason": str(error)})
    if as_json:
        output.as_json({"requeued": done, "stay": stay})
    else:
        output.echo(f"{done} dead letters were put back")
        for one in stay:
            output.echo(f"{one['seq']}: {one['reason']}", err=True)
    if stay:
        raise SystemExit(3)


@dead_letters.command()
@click.option("--before", help="Only letters that were found before this time, RFC 3339 with an offset.")
@of_queue
@of_reason
@click.option("--dry-run", is_flag=True, help="Only say how many it would delete.")
@script
def purge(before: str | None, queue: str | None, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Delete dead letters for good."""
    from worker.jobs.store import dead_letters as letters

    if not (before or queue or reason):
        raise click.UsageError("say which dead letters are meant: --before, --queue or --reason")
    with usage():
        chosen = letters.LetterFilter(queue, reason, None if before is None else instant("--before", before))
    with writer(load()) as engine:
        number = _purge(engine, chosen, dry_run=dry_run)
    if as_json:
        output.as_json({"letters": number, "dry_run": dry_run})
    else:
        output.echo(f"{number} dead letters {'would be' if dry_run else 'were'} deleted")


def _purge(engine: "Engine", chosen: "LetterFilter", *, dry_run: bool) -> int:
    from worker.jobs.store import dead_letters as letters

    if dry_run:
        with engine.connect() as connection:
            return letters.count(connection, chosen)
    number, gone = 0, letters.BATCH
    while gone == letters.BATCH:
        with engine.begin() as connection:
            gone = letters.purge(connection, chosen)
        number += gone
    return number


def _all(engine: "Engine", chosen: "LetterFilter") -> Iterator[int]:
    """Yield the numbers of what is there now, each once: what is put back may come again with a larger number."""
    from worker.jobs.store import dead_letters as letters

    with engine.connect() as connection:
        last = next((one.seq for one in letters.newest(connection, chosen, limit=1)), -1)
    seq = -1
    while seq < last:
        with engine.connect() as connection:
            found = letters.after(connection, chosen, seq)
        yield from (one for one in found if one <= last)
        seq = found[-1] if found else last


def _letter(engine: "Engine", seq: int) -> "tuple[StoredLetter, bytes]":
    from worker.jobs.store import dead_letters as letters

    with engine.connect() as connection:
        found = letters.read(connection, seq)
    if found is None:
        raise click.ClickException(f"there is no dead letter {seq}; see: afterword dead-letters list")
    return found


def _put_back(engine: "Engine", settings: Settings, seq: int) -> int:
    """Put one letter back; return how many that were, 0 when somebody else was quicker. CannotRequeue says why not."""
    from worker.jobs.store import dead_letters as letters

    letter, entry = _letter(engine, seq)
    _whole(letter)
    if letter.queue == INBOX:
        job = _text(entry)
        with engine.begin() as connection:
            return int(letters.resubmit(connection, seq, job=job, job_id=_uuid(letter.job_id)))
    # Before the letter goes: what is there twice is recognised, what is nowhere is lost.
    _push(settings, letter.queue, entry)
    with engine.begin() as connection:
        return letters.forget(connection, [seq])


def _whole(letter: "StoredLetter") -> None:
    from worker.jobs.core.entry_size import is_cut
    from worker.queue.nudges import REJECTED_BYTES

    if letter.queue not in (INBOX, *LISTS):
        raise CannotRequeue(f"it was found in {letter.queue!r}, to which nothing is put back; delete it with purge")
    is_nudge = letter.queue not in (INBOX, "chat.intake")
    if is_cut(letter.reason, letter.size) or (is_nudge and letter.size >= REJECTED_BYTES):
        raise CannotRequeue(f"only its first {letter.size} bytes were kept; send it again, within the limit")


def _text(entry: bytes) -> str:
    try:
        text = entry.decode()
    except UnicodeDecodeError as error:
        raise CannotRequeue(f"its bytes are no UTF-8 at byte {error.start}; submit the job again, mended") from error
    if "\0" in text:
        raise CannotRequeue("it holds a zero byte, which no inbox takes; submit the job again, mended")
    return text


def _push(settings: Settings, queue: str, entry: bytes) -> None:
    from redis import RedisError

    from worker.queue.nudges import connect

    need(settings, "redis_url")
    assert settings.redis_url is not None
    with connect(settings.redis_url) as redis:
        try:
            redis.lpush(queue, entry)
        except RedisError as error:
            raise click.ClickException(f"Redis did not take it: {error}; the dead letter stays") from error


def _uuid(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None


def _plain(letter: "StoredLetter") -> dict[str, Any]:
    return asdict(letter) | {"created_at": output.plain(letter.created_at)}
