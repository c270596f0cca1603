"""The command events: all jobs that have ended, by cursor, so that a dead receiver never costs a result."""

import click

from worker.cli import main, output
from worker.cli.jobs import script
from worker.cli.receiver_lookup import plain_row, receiving

COLUMNS = ["cursor", "id", "tenant", "type", "custom_id", "finished_at", "error_code", "total_tokens"]


@main.command()
@click.option(
    "--after", type=click.IntRange(min=0), default=0, show_default=True, help="The last cursor you have; 0: the start."
)
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@script
def events(after: int, tenant: str | None, limit: int, as_json: bool) -> None:
    """Print what has ended after a cursor, oldest first, and the cursor to ask with next.

    Every end is here once, whether or not a webhook told of it; the answer itself is in jobs_v1.
    """
    from worker.webhooks.store import listing

    with receiving() as place, place.engine.begin() as connection:
        rows = listing.ended_after(connection, after, limit=limit, tenant=tenant)
    told = [plain_row(row) for row in rows]
    told = [{"type": f"job.{one['status']}", **one} for one in told]
    following = told[-1]["cursor"] if told else after
    if as_json:
        output.as_json({"events": told, "next": following})
        return
    if told:
        output.echo(output.rows(COLUMNS, told))
    output.echo(f"next: --after {following}")
