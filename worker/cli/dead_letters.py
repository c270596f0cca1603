"""`afterword dead-letters`: messages that could not become a job, with their bytes and the reason."""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.database import reader, writer
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import dry_run_option, json_option, limit_option
from worker.cli.support.settings import load
from worker.cli.support.times import InstantOption, at

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.jobs.store.dead_letters import DeadLetterFilter, StoredDeadLetter

COLUMNS = ["seq", "created_at", "queue", "reason", "job_id", "size", "message"]
queue_option = click.option(
    "--queue", help="Only dead letters from this place: chat.intake, submit_v1, chat.run, webhooks."
)
reason_option = click.option("--reason", help="Only dead letters with this reason, such as not_accepted.")


@click.group(
    epilog=examples(
        "afterword dead-letters list",
        "afterword dead-letters show 17",
        "afterword dead-letters requeue 17 18",
    )
)
def dead_letters() -> None:
    """List, show, requeue and delete dead letters.

    A dead letter is a message or an inbox row that could not become a job. Its bytes are kept.
    """


@dead_letters.command(
    "list",
    epilog=examples(
        "afterword dead-letters list",
        "afterword dead-letters list --queue chat.intake --reason not_accepted --json",
    ),
)
@queue_option
@reason_option
@limit_option()
@json_option
def list_(queue: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List the newest dead letters."""
    from worker.jobs.store import dead_letters as store

    with reader(load()) as engine, engine.connect() as connection:
        newest = store.newest(connection, store.DeadLetterFilter(queue, reason), limit=limit)
    found = [_plain(dead_letter) for dead_letter in newest]
    if as_json:
        output.as_json(found)
    else:
        output.echo(output.rows(COLUMNS, found) if found else "no dead letters")


@dead_letters.command(epilog=examples("afterword dead-letters show 17", "afterword dead-letters show 17 --json"))
@click.argument("seq", type=int)
@json_option
def show(seq: int, as_json: bool) -> None:
    """Show a dead letter and its bytes.

    SEQ is its number in the list. Bytes that are not UTF-8 are printed in base64.
    """
    with reader(load()) as engine:
        dead_letter, entry = _read(engine, seq)
    try:
        shown = _plain(dead_letter) | {"entry": entry.decode()}
    except UnicodeDecodeError:
        shown = _plain(dead_letter) | {"entry_base64": base64.b64encode(entry).decode()}
    output.as_json(shown) if as_json else output.echo(output.fields(shown))


@dead_letters.command(
    epilog=examples(
        "afterword dead-letters requeue 17 18",
        "afterword dead-letters requeue --reason not_accepted",
    )
)
@click.argument("seqs", nargs=-1, type=int, metavar="SEQ...")
@queue_option
@reason_option
@json_option
def requeue(seqs: tuple[int, ...], queue: str | None, reason: str | None, as_json: bool) -> None:
    """Put dead letters back where they came from.

    Choose them by their numbers, or all with a queue or a reason. Exit code 3: at least one cannot be put back and
    stays.
    """
    from worker.cli.support.dead_letter_requeue import CannotRequeue, put_back
    from worker.jobs.store.dead_letters import DeadLetterFilter

    if bool(seqs) == bool(queue or reason):
        raise click.UsageError("give the numbers of dead letters, or --queue or --reason")
    settings, done, stay = load(), 0, []
    with writer(settings) as engine:
        for seq in seqs or _all(engine, DeadLetterFilter(queue, reason)):
            try:
                done += put_back(engine, settings, seq, *_read(engine, seq))
            except CannotRequeue as error:
                stay.append({"seq": seq, "reason": str(error)})
    if as_json:
        output.as_json({"requeued": done, "stay": stay})
    else:
        output.echo(f"{done} dead letters were put back")
        for dead_letter in stay:
            output.echo(f"{dead_letter['seq']}: {dead_letter['reason']}", err=True)
    if stay:
        raise SystemExit(ExitCode.ENDED_OTHERWISE)


@dead_letters.command(
    epilog=examples(
        "afterword dead-letters purge --before 30d --dry-run",
        "afterword dead-letters purge --queue chat.run --before 2026-11-24T00:00:00Z",
    )
)
@click.option(
    "--before", type=InstantOption(), help="Only dead letters older than this: RFC 3339, or 30d for 30 days ago."
)
@queue_option
@reason_option
@dry_run_option
@json_option
def purge(
    before: datetime | timedelta | None, queue: str | None, reason: str | None, dry_run: bool, as_json: bool
) -> None:
    """Delete dead letters for good."""
    from worker.jobs.store.dead_letters import DeadLetterFilter
    from worker.webhooks.store.receivers import present

    if before is None and not (queue or reason):
        raise click.UsageError("choose dead letters with --before, --queue or --reason")
    with writer(load()) as engine:
        with engine.begin() as connection:
            found_before = None if before is None else at(before, present(connection))
        number = _purge(engine, DeadLetterFilter(queue, reason, found_before), dry_run=dry_run)
    if as_json:
        output.as_json({"letters": number, "dry_run": dry_run})
    else:
        output.echo(f"{number} dead letters {'would be' if dry_run else 'were'} deleted")


def _purge(engine: "Engine", chosen: "DeadLetterFilter", *, dry_run: bool) -> int:
    from worker.jobs.store import dead_letters as store

    if dry_run:
        with engine.connect() as connection:
            return store.count(connection, chosen)
    total, deleted = 0, store.BATCH
    while deleted == store.BATCH:
        with engine.begin() as connection:
            deleted = store.purge(connection, chosen)
        total += deleted
    return total


def _all(engine: "Engine", chosen: "DeadLetterFilter") -> Iterator[int]:
    """Yield the number of each dead letter once: a dead letter that fails again gets a larger number."""
    from worker.jobs.store import dead_letters as store

    with engine.connect() as connection:
        last = next((dead_letter.seq for dead_letter in store.newest(connection, chosen, limit=1)), -1)
    seq = -1
    while seq < last:
        with engine.connect() as connection:
            found = store.after(connection, chosen, seq)
        yield from (number for number in found if number <= last)
        seq = found[-1] if found else last


def _read(engine: "Engine", seq: int) -> "tuple[StoredDeadLetter, bytes]":
    from worker.jobs.store import dead_letters as store

    with engine.connect() as connection:
        found = store.read(connection, seq)
    if found is None:
        raise click.ClickException(f"there is no dead letter {seq}; see: afterword dead-letters list")
    return found


def _plain(dead_letter: "StoredDeadLetter") -> dict[str, Any]:
    return asdict(dead_letter) | {"created_at": output.plain(dead_letter.created_at)}
