"""`afterword webhooks test`: send a test event and wait for the receiver's answer."""

import time
from typing import Any

import click

from worker.cli.support import output
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.support.times import Duration
from worker.cli.webhooks.receiver_lookup import ReceiverCommand, receiving, registered

LOOK_S = 0.2


@click.command(
    epilog=examples(
        "afterword webhooks test billing",
        "afterword webhooks test billing --wait 20s",
    )
)
@click.argument("name")
@tenant_option
@click.option(
    "--wait",
    "wait_s",
    type=Duration(low=0, high=600),
    default=0.0,
    help="Wait this long for the first attempt: 20, 90s, 10m at most.",
)
@json_option
def test(name: str, tenant: str, wait_s: float, as_json: bool) -> None:
    """Send a receiver the event receiver.test.

    It is signed as every other event. With --wait the exit code is 0 if it was delivered, 1 if the attempt failed, 4
    if no attempt was made in time.
    """
    from worker.webhooks.store import redeliver

    with receiving() as command:
        with command.engine.begin() as connection:
            found = registered(connection, tenant, name)
            if found.status != "enabled":
                raise click.ClickException(f"{name} is disabled; first: afterword webhooks enable {name}")
            delivery_id = redeliver.new_test(connection, found)
        attempt = _first_attempt(command, delivery_id, wait_s) if wait_s else None
    values = {"delivery": delivery_id, **(attempt or {})}
    output.as_json(values) if as_json else output.echo(output.fields(values))
    if wait_s and attempt is None:
        output.echo("no attempt was made in time; see: afterword webhooks deliveries list", err=True)
        raise SystemExit(ExitCode.NOT_IN_TIME)
    if attempt is not None and attempt["outcome"] != "delivered":
        raise SystemExit(ExitCode.FAILED)


def _first_attempt(command: ReceiverCommand, delivery_id: str, wait_s: float) -> dict[str, Any] | None:
    from worker.webhooks.store import listing

    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with command.engine.begin() as connection:
            for row in listing.attempts(connection, delivery_id):
                if row.outcome is not None:
                    names = ("attempt", "outcome", "http_status", "error_code", "total_ms")
                    return {name: getattr(row, name) for name in names}
        time.sleep(LOOK_S)
    return None
