"""Commands on deliveries: which there are and what they wait for, their attempts, sending them once more."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from worker.cli import output
from worker.cli.jobs import script
from worker.cli.receiver_lookup import delivery_id, known, plain, plain_row, receiving, registered, standing, when
from worker.cli.receiver_lookup import tenant as of_tenant
from worker.cli.receivers import webhooks
from worker.core.lifecycle import DeliveryStatus
from worker.webhooks.core.explain import WaitingDelivery, why
from worker.webhooks.core.outcome import DELIVERY_MEANINGS, DeliveryErrorCode

if TYPE_CHECKING:
    from sqlalchemy import Connection

STATUSES = ["failed", "cancelled", "held"]
RATES = click.FloatRange(0.01, 1000)
COLUMNS = [
    "id", "receiver", "event_type", "status", "attempts", "created_at", "last_http_status", "last_error_code", "why",
]  # fmt: skip
ATTEMPT_COLUMNS = [
    "attempt", "origin", "variant", "sent_at", "outcome", "http_status", "error_code", "retry_after_s", "dns_ms",
    "connect_ms", "tls_ms", "first_byte_ms", "total_ms",
]  # fmt: skip
RECOVERY_COLUMNS = ["id", "tenant", "receiver", "status", "statuses", "since", "until", "rate_per_s", "redelivered"]
_HIDDEN = {"receiver_id", "attempt", "run_at", "due_in_s"}


@webhooks.command()
@click.option("--status", type=click.Choice([one.value for one in DeliveryStatus]), help="Only those that stand there.")
@click.option("--job", help="Only those of this job.")
@click.option("--receiver", help="Only those to this receiver.")
@of_tenant
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@script
def deliveries(
    status: str | None, job: str | None, receiver: str | None, tenant: str, limit: int, as_json: bool
) -> None:
    """List the newest deliveries, and why those wait that wait."""
    with receiving() as place, place.engine.begin() as connection:
        wanted = {
            "status": status,
            "job_id": None if job is None else delivery_id(job),
            "receiver_id": None if receiver is None else known(connection, tenant, receiver).id,
        }
        told = _told(connection, limit=limit, **wanted)
    if as_json:
        output.as_json(told)
    else:
        output.echo(output.rows(COLUMNS, told) if told else "no deliveries")


def _told(connection: "Connection", *, limit: int, **wanted: str | None) -> list[dict[str, Any]]:
    """Return deliveries by column, `why` among them."""
    from worker.webhooks.store import listing, receivers

    rows = listing.newest(connection, limit=limit, **wanted)
    ids = {row.receiver_id for row in rows}
    flying = listing.in_flight(connection, ids)
    found = {one: receivers.by_id(connection, one) for one in ids}
    places = {one: standing(to, flying.get(one, 0)) for one, to in found.items() if to is not None}
    told = []
    for row in rows:
        waits = WaitingDelivery(row.status, row.waiting_for, row.due_in_s, row.last_http_status, row.last_error_code)
        values = plain_row(row, but=_HIDDEN)
        queued = row.status == DeliveryStatus.queued and row.waiting_for != "order"
        next_at = plain(row.run_at) if queued else None
        told.append(
            values | {"attempts": row.attempt, "next_attempt_at": next_at, "why": why(waits, places[row.receiver_id])}
        )
    return told


@webhooks.command()
@click.argument("id", metavar="DELIVERY_ID")
@script
def attempts(id: str, as_json: bool) -> None:
    """Show a delivery and each of its attempts, with what the receiver answered."""
    from worker.webhooks.store import listing

    with receiving() as place, place.engine.begin() as connection:
        found = _told(connection, limit=1, id=delivery_id(id))
        if not found:
            raise click.ClickException(f"no delivery {id} is known; list them with: afterword webhooks deliveries")
        rows = listing.attempts(connection, found[0]["id"])
    made = [plain_row(row, but={"receiver_id"}) for row in rows]
    if as_json:
        output.as_json(found[0] | {"attempt_rows": made})
        return
    output.echo(output.fields(found[0]))
    if made:
        output.echo("\n" + output.rows(ATTEMPT_COLUMNS, made))
        output.echo("".join(f"\n{line}" for line in _answer(made[-1])))


def _answer(attempt: dict[str, Any]) -> list[str]:
    """Return what the latest attempt's code means, and the start of what the receiver said."""
    code = attempt["error_code"]
    lines = [DELIVERY_MEANINGS[DeliveryErrorCode(code)].sentence] if code in list(DeliveryErrorCode) else []
    return [*lines, *(["It answered:", attempt["response_body"]] if attempt["response_body"] else [])]


@webhooks.command()
@click.argument("id", metavar="DELIVERY_ID")
@script
def redeliver(id: str, as_json: bool) -> None:
    """Send a delivery once more, whatever became of it: the same id and bytes, all its attempts, out of turn."""
    from worker.webhooks.store import redeliver as requeue

    chosen = delivery_id(id)
    with receiving() as place, place.engine.begin() as connection:
        fault = requeue.redeliver(connection, chosen)
    if fault is not None:
        raise click.ClickException(fault)
    told = {"delivery": chosen, "status": "queued"}
    output.as_json(told) if as_json else output.echo(f"delivery {id} is queued again")


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--since", required=True, help="Deliveries made from then on: 6h, or 2026-11-24T03:00:00Z.")
@click.option("--until", help="And before then; default: now.")
@click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Which; default: failed.")
@click.option("--rate", type=RATES, default=10.0, show_default=True, help="Deliveries a second at most.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@script
def recover(
    name: str,
    tenant: str,
    since: str,
    until: str | None,
    statuses: Sequence[str],
    rate: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Queue again what a receiver has lost of a span of time; the workers do it, slowly, whatever restarts."""
    from worker.webhooks.store import receivers
    from worker.webhooks.store import recover as recoveries

    with receiving() as place, place.engine.begin() as connection:
        found = registered(connection, tenant, name)
        now = receivers.present(connection)
        chosen = tuple(DeliveryStatus(one) for one in statuses or ["failed"])
        first, last = when("--since", since, now=now), when("--until", until, now=now) if until else now
        if first >= last:
            raise click.UsageError(f"--since is {plain(first)}, which is not before --until, {plain(last)}")
        wanted = recoveries.Span(found.id, first, last, chosen)
        told: dict[str, Any] = {"recovery": None, "found": recoveries.counted(connection, wanted)}
        if not dry_run:
            if found.status != "enabled":
                raise click.ClickException(f"{name} is disabled; first: afterword webhooks enable {name}")
            told["recovery"] = recoveries.begin(connection, wanted, rate_per_s=rate)
            if told["recovery"] is None:
                raise click.ClickException(f"a recovery of {name} is running; see: afterword webhooks recoveries")
    if as_json:
        output.as_json(told)
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(told["found"].items())) or "nothing"
    output.echo(f"{counts} found" if dry_run else f"recovery {told['recovery']}: {counts} found, {rate:g} a second")


@webhooks.command("recoveries")
@click.option("--cancel", "cancelled", metavar="ID", help="End a running one; what it queued stays queued.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@script
def recoveries_(cancelled: str | None, limit: int, as_json: bool) -> None:
    """List recoveries and how far they have come, or cancel one."""
    from worker.webhooks.store import recover as recoveries

    with receiving() as place, place.engine.begin() as connection:
        if cancelled is not None and not recoveries.cancel(connection, delivery_id(cancelled)):
            raise click.ClickException(f"no recovery {cancelled} is running; see: afterword webhooks recoveries")
        rows = recoveries.listed(connection, limit=limit)
    told = [plain_row(row) for row in rows]
    if as_json:
        output.as_json(told)
    else:
        output.echo(output.rows(RECOVERY_COLUMNS, told) if told else "no recoveries")
