"""`afterword webhooks update` (once `change`): change a receiver's values, address or headers."""

from collections.abc import Sequence
from typing import Any, TextIO

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples, hidden_alias
from worker.cli.support.options import json_option, tenant_option
from worker.cli.webhooks.receiver_lookup import known, receiving, registered
from worker.cli.webhooks.receiver_options import (
    check_url,
    given_values,
    header_lines,
    merged,
    receiver_options,
    registration,
    resealed,
)
from worker.cli.webhooks.show import described


@click.command(
    epilog=examples(
        "afterword webhooks update billing --in-flight 2 --timeout 20s",
        "afterword webhooks update billing --schedule 5,30,5m,1h",
        "afterword webhooks update billing --url https://b.example/in",
    )
)
@click.argument("name")
@tenant_option
@click.option("--url", help="The new address. The receiver's health starts from zero.")
@click.option("--default/--no-default", "is_default", default=None, help="Send it events of jobs without a receiver.")
@click.option("--drop-header", "dropped", multiple=True, metavar="NAME", help="Send this header no longer.")
@receiver_options
@json_option
def update(
    name: str,
    tenant: str,
    url: str | None,
    headers: Sequence[str],
    header_file: TextIO | None,
    dropped: Sequence[str],
    as_json: bool,
    **given: Any,
) -> None:
    """Change a receiver.

    Values that you do not name stay. --event replaces all events; --header replaces the header of that name.
    """
    from worker.webhooks.store import receivers

    wanted, more = given_values(given), header_lines(headers, header_file)
    with receiving() as command:
        if url is not None:
            check_url(command, url)
        with command.engine.begin() as connection:
            old = registered(connection, tenant, name, lock=True)
            chosen = registration(name, merged(old.registration, wanted), old=True)
            sealed = resealed(command, old, url=url, headers=more, dropped=dropped)
            receivers.change(connection, old.id, chosen, sealed, moved=url is not None)
            shown = described(known(connection, tenant, name))
    output.as_json(shown) if as_json else output.echo(output.fields(shown))


change = hidden_alias(update, "change")
