"""`afterword webhooks deliveries` and `redeliver`: list, show and repeat deliveries."""

from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples, hidden_alias, hidden_options, list_by_default
from worker.cli.support.options import json_option, limit_option, tenant_option
from worker.cli.webhooks.receiver_lookup import known, receiving, state_of, stored_id
from worker.core.lifecycle import DeliveryStatus

if TYPE_CHECKING:
    from sqlalchemy import Connection

COLUMNS = [
    "id", "receiver", "event_type", "status", "attempts", "created_at", "last_http_status", "last_error_code", "why",
]  # fmt: skip
ATTEMPT_COLUMNS = [
    "attempt", "origin", "variant", "sent_at", "outcome", "http_status", "error_code", "retry_after_s", "dns_ms",
    "connect_ms", "tls_ms", "first_byte_ms", "total_ms",
]  # fmt: skip
_HIDDEN = {"receiver_id", "attempt", "run_at", "due_in_s"}


@click.command(
    "list",
    epilog=examples(
        "afterword webhooks deliveries list",
        "afterword webhooks deliveries list --receiver billing --status failed",
        'afterword webhooks deliveries list --job "$JOB_ID" --json',
    ),
)
@click.option("--status", type=click.Choice([status.value for status in DeliveryStatus]), help="Only in this status.")
@click.option("--job", help="Only deliveries of the job with this id.")
@click.option("--receiver", help="Only deliveries to this receiver.")
@tenant_option
@limit_option()
@json_option
def list_(status: str | None, job: str | None, receiver: str | None, tenant: str, limit: int, as_json: bool) -> None:
    """List the newest deliveries and the reason of a wait."""
    with receiving() as command, command.engine.begin() as connection:
        wanted = {
            "status": status,
            "job_id": None if job is None else stored_id(job),
            "receiver_id": None if receiver is None else known(connection, tenant, receiver).id,
        }
        found = _read(connection, limit=limit, **wanted)
    if as_json:
        output.as_json(found)
    else:
        output.echo(output.rows(COLUMNS, found) if found else "no deliveries")


def _read(connection: "Connection", *, limit: int, **wanted: str | None) -> list[dict[str, Any]]:
    """Return deliveries by column; `why` is the reason of a wait."""
    from worker.webhooks.core.explain import WaitingDelivery, why
    from worker.webhooks.store import listing, receivers

    rows = listing.newest(connection, limit=limit, **wanted)
    ids = {row.receiver_id for row in rows}
    in_flight = listing.in_flight(connection, ids)
    found = {receiver_id: receivers.by_id(connection, receiver_id) for receiver_id in ids}
    states = {
        receiver_id: state_of(receiver, in_flight.get(receiver_id, 0))
        for receiver_id, receiver in found.items()
        if receiver is not None
    }
    deliveries = []
    for row in rows:
        waiting = WaitingDelivery(row.status, row.waiting_for, row.due_in_s, row.last_http_status, row.last_error_code)
        is_due = row.status == DeliveryStatus.queued and row.waiting_for != "order"
        deliveries.append(
            output.json_row(row, but=_HIDDEN)
            | {
                "attempts": row.attempt,
                "next_attempt_at": output.json_value(row.run_at) if is_due else None,
                "why": why(waiting, states[row.receiver_id]),
            }
        )
    return deliveries


@click.command(
    epilog=examples(
        "afterword webhooks deliveries show 5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6d",
        'afterword webhooks deliveries show "$DELIVERY_ID" --json',
    )
)
@click.argument("id", metavar="DELIVERY_ID")
@json_option
def show(id: str, as_json: bool) -> None:
    """Show a delivery, its attempts and the last answer."""
    from worker.webhooks.store import listing

    with receiving() as command, command.engine.begin() as connection:
        found = _read(connection, limit=1, id=stored_id(id))
        if not found:
            raise click.ClickException(f"no delivery {id} is known; list them with: afterword webhooks deliveries list")
        rows = listing.attempts(connection, found[0]["id"])
    made = [output.json_row(row, but={"receiver_id"}) for row in rows]
    if as_json:
        output.as_json(found[0] | {"attempt_rows": made})
        return
    output.echo(output.fields(found[0]))
    if made:
        output.echo("\n" + output.rows(ATTEMPT_COLUMNS, made))
        output.echo("".join(f"\n{line}" for line in _answer(made[-1])))


def _answer(attempt: dict[str, Any]) -> list[str]:
    """Return the meaning of the last attempt's error code, and the start of the receiver's answer."""
    from worker.webhooks.core.outcome import DELIVERY_MEANINGS, DeliveryErrorCode

    code = attempt["error_code"]
    lines = [DELIVERY_MEANINGS[DeliveryErrorCode(code)].sentence] if code in list(DeliveryErrorCode) else []
    return [*lines, *(["It answered:", attempt["response_body"]] if attempt["response_body"] else [])]


@click.group(
    invoke_without_command=True,
    params=hidden_options(list_),
    commands=[list_, show],
    epilog=examples(
        "afterword webhooks deliveries list --status queued",
        "afterword webhooks deliveries show 5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6d",
    ),
)
@click.pass_context
def deliveries(context: click.Context, /, **options: Any) -> None:
    """List deliveries, or show a delivery and its attempts.

    Without a command: `list`, with its options.
    """
    list_by_default(context, list_, options)


attempts = hidden_alias(show, "attempts")


@click.command(epilog=examples("afterword webhooks redeliver 5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6d"))
@click.argument("id", metavar="DELIVERY_ID")
@json_option
def redeliver(id: str, as_json: bool) -> None:
    """Send a delivery again, with the same id and body.

    The delivery gets all its attempts again and does not wait for its ordering key. It must not be in flight, and its
    receiver must be enabled.
    """
    from worker.webhooks.store import redeliver as store

    chosen = stored_id(id)
    with receiving() as command, command.engine.begin() as connection:
        fault = store.redeliver(connection, chosen)
    if fault is not None:
        raise click.ClickException(fault)
    values = {"delivery": chosen, "status": "queued"}
    output.as_json(values) if as_json else output.echo(f"delivery {id} is queued again")
