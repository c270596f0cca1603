"""`afterword db`: create and update the tables."""

import click

from worker.cli.support import output
from worker.cli.support.database import database
from worker.cli.support.lazy_commands import examples
from worker.cli.support.settings import load


@click.group(epilog=examples("afterword db upgrade"))
def db() -> None:
    """Create or update the tables and views."""


@db.command(
    epilog=examples(
        "afterword db upgrade",
        "AFTERWORD_DATABASE_URL=sqlite:////var/lib/afterword.db afterword db upgrade",
    )
)
def upgrade() -> None:
    """Create or update the tables and views for this release.

    Run it before the workers of a new release start. It is one transaction, and you may repeat it.
    """
    with database(load()) as listing:
        before, newest = listing.state()
        if before is not None and before > newest:
            # An older release is installed again; its scripts must go on if it can work on the newer schema.
            if fault := listing.fault():
                raise click.ClickException(fault)
            output.echo(f"the database is at {before} of a newer release and serves this one; nothing to do")
        elif before == newest:
            output.echo(f"the database is at {newest}; nothing to do")
        else:
            listing.upgrade()
            output.echo(f"the database went from {before or 'nothing'} to {newest}")
        if warning := listing.open_schema():
            output.echo(f"warning: no worker starts yet: {warning}", err=True)
