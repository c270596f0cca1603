"""`afterword events`: read the feed of ended jobs by cursor."""

import click

from worker.cli.support import output
from worker.cli.support.database import writer
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, limit_option
from worker.cli.support.settings import load

COLUMNS = ["cursor", "id", "tenant", "type", "custom_id", "finished_at", "error_code", "total_tokens"]


@click.command(
    epilog=examples(
        "afterword events",
        "afterword events --after 1200 --limit 1000 --json",
        "afterword events --tenant acme",
    )
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The last cursor that you have read; 0: read from the start.",
)
@click.option("--tenant", help="Only jobs of this tenant.")
@limit_option(100)
@json_option
def events(after: int, tenant: str | None, limit: int, as_json: bool) -> None:
    """Read the feed of ended jobs, oldest first.

    The last line is the cursor for the next call. The feed has every ended job once, with or without a webhook: a
    failed receiver never costs a result. The answers are in jobs_v1.
    """
    from worker.webhooks.store import listing

    with writer(load()) as engine, engine.begin() as connection:
        rows = listing.ended_after(connection, after, limit=limit, tenant=tenant)
    ended = [output.json_row(row) for row in rows]
    ended = [{"type": f"job.{row['status']}", **row} for row in ended]
    following = ended[-1]["cursor"] if ended else after
    if as_json:
        output.as_json({"events": ended, "next": following})
        return
    if ended:
        output.echo(output.rows(COLUMNS, ended))
    output.echo(f"next: --after {following}")
