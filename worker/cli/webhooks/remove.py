"""`afterword webhooks remove`: delete a receiver and its secrets."""

import sys

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.webhooks.receiver_lookup import batches, known, receiving


@click.command(epilog=examples("afterword webhooks remove billing", "afterword webhooks remove billing --yes"))
@click.argument("name")
@tenant_option
@click.option("--yes", is_flag=True, help="Do not ask; required without a terminal.")
@json_option
def remove(name: str, tenant: str, yes: bool, as_json: bool) -> None:
    """Remove a receiver and cancel its waiting deliveries.

    Its secrets are deleted, and another receiver may take its name.
    """
    from worker.webhooks.store import receivers, redeliver

    with receiving() as command:
        with command.engine.begin() as connection:
            found = known(connection, tenant, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"there is no terminal to ask at; confirm the removal of {name} with --yes")
            click.confirm(f"Remove {name} and cancel its waiting deliveries?", abort=True, err=True)
        with command.engine.begin() as connection:
            receivers.remove(connection, found.id)
        cancelled = batches(command, lambda connection: redeliver.drop(connection, found.id))
    values = {"tenant": tenant, "name": name, "status": "removed", "cancelled": cancelled}
    output.as_json(values) if as_json else output.echo(f"{name} is removed; deliveries cancelled: {cancelled}")
