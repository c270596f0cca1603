"""Commands that operate receivers: test, rotate, disable, enable, remove."""

import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli import output
from worker.cli.jobs import NOT_YET, script
from worker.cli.receiver_lookup import ReceiverCommand, batches, known, receiving, registered, span, when
from worker.cli.receiver_lookup import tenant as of_tenant
from worker.cli.receivers import print_secrets, webhooks
from worker.core.lifecycle import DeliveryStatus
from worker.webhooks.core.signing import KeyKind, rotated

if TYPE_CHECKING:
    from worker.webhooks.core.signing import SigningKey
    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault

_LOOK_EVERY_S = 0.2


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--wait", "wait_s", type=click.FloatRange(0, 600), default=0.0, help="Seconds to wait for the answer.")
@script
def test(name: str, tenant: str, wait_s: float, as_json: bool) -> None:
    """Send a receiver the event receiver.test, signed as all others.

    With --wait: exit code 0 when it was delivered, 1 when the attempt failed, 4 when none was made in time.
    """
    from worker.webhooks.store import redeliver

    with receiving() as place:
        with place.engine.begin() as connection:
            found = registered(connection, tenant, name)
            if found.status != "enabled":
                raise click.ClickException(f"{name} is disabled; first: afterword webhooks enable {name}")
            new = redeliver.new_test(connection, found)
        attempt = _first_attempt(place, new, wait_s) if wait_s else None
    told = {"delivery": new, **(attempt or {})}
    if as_json:
        output.as_json(told)
    else:
        output.echo(output.fields(told))
    if wait_s and attempt is None:
        output.echo("no attempt was made in time; see: afterword webhooks deliveries", err=True)
        raise SystemExit(NOT_YET)
    if attempt is not None and attempt["outcome"] != "delivered":
        raise SystemExit(1)


def _first_attempt(place: ReceiverCommand, delivery_id: str, wait_s: float) -> dict[str, Any] | None:
    from worker.webhooks.store import listing

    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with place.engine.begin() as connection:
            for row in listing.attempts(connection, delivery_id):
                if row.outcome is not None:
                    names = ("attempt", "outcome", "http_status", "error_code", "total_ms")
                    return {name: getattr(row, name) for name in names}
        time.sleep(_LOOK_EVERY_S)
    return None


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--overlap", default="24h", show_default=True, help="How long the old secret signs too; 0: it leaked.")
@click.option(
    "--kind", type=click.Choice([one.value for one in KeyKind]), default="hmac", show_default=True, help="Which key."
)
@script
def rotate(name: str, tenant: str, overlap: str, kind: str, as_json: bool) -> None:
    """Give a receiver a new signing secret, and print it: it is never shown again.

    Until the overlap ends each delivery carries a signature with the old one as well.
    """
    from worker.webhooks import sealed_fields
    from worker.webhooks.store import receivers

    with receiving() as place:
        vault = place.vault()
        with place.engine.begin() as connection:
            found = registered(connection, tenant, name, lock=True)
            now = receivers.present(connection)
            keys = _rotated(vault, found, KeyKind(kind), now=now, overlap=span("--overlap", overlap))
            public = sealed_fields.public_text(keys)
            url, hidden = sealed_fields.seal_shown_url(vault, found.id, found.sealed.url, found.sealed.url_sealed)
            sealed = replace(
                found.sealed,
                url=url,
                url_sealed=hidden,
                keys_sealed=sealed_fields.seal_keys(vault, found.id, keys),
                public_key=public,
            )
            receivers.change(connection, found.id, found.registration, sealed)
    secret = keys[0].text if keys[0].kind is KeyKind.HMAC else None
    print_secrets({"tenant": tenant, "name": name}, secret=secret, public_key=public, as_json=as_json)


def _rotated(
    vault: "Vault", receiver: "Receiver", kind: KeyKind, *, now: datetime, overlap: timedelta
) -> "tuple[SigningKey, ...]":
    """Return its keys with a new one first; new ones of each kind where it has none, or none that opens."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import CannotOpen, new_key

    try:
        old = sealed_fields.keys_of(vault, receiver.id, receiver.sealed.keys_sealed)
    except CannotOpen as error:
        if overlap:
            raise click.ClickException(f"{error}; or make new keys of both kinds with --overlap 0") from error
        old = ()
    if not old:
        return sealed_fields.new_keys(now)[0]
    try:
        return rotated(old, new_key(kind, now), now=now, overlap=overlap)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--reason", help="Shown wherever its deliveries wait; default: by an operator.")
@script
def disable(name: str, tenant: str, reason: str | None, as_json: bool) -> None:
    """Send a receiver nothing more; what comes for it is kept on hold for 30 days."""
    from worker.webhooks.store import receivers

    why = reason or receivers.BY_OPERATOR
    with receiving() as place, place.engine.begin() as connection:
        found = registered(connection, tenant, name)
        if not receivers.disable(connection, found.id, why):
            raise click.ClickException(f"{name} is disabled already ({found.disabled_reason})")
    told = {"tenant": tenant, "name": name, "status": "disabled", "disabled_reason": why}
    output.as_json(told) if as_json else output.echo(f"{name} is disabled; what comes for it is kept on hold")


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--resume", default="all", show_default=True, help="Of what is on hold: all, none, or since when (6h).")
@script
def enable(name: str, tenant: str, resume: str, as_json: bool) -> None:
    """Send to a receiver again, with the health of a new one, and send it what is on hold.

    What is not resumed is cancelled; `afterword webhooks recover --status cancelled` finds it again.
    """
    from worker.webhooks.store import receivers, redeliver

    with receiving() as place:
        with place.engine.begin() as connection:
            found = registered(connection, tenant, name)
            since = _since(resume, now=receivers.present(connection))
            receivers.enable(connection, found.id)
        # In transactions of their own: there may be a million, and workers write meanwhile.
        held = [DeliveryStatus.held]
        dropped = batches(place, lambda one: redeliver.drop(one, found.id, statuses=held, before=since)) if since else 0
        resumed = batches(place, lambda one: redeliver.resume(one, found.id, since=since))
        _advance(place, found.id)
    told = {"tenant": tenant, "name": name, "status": "enabled", "queued": resumed, "cancelled": dropped}
    line = f"{name} is enabled; queued again: {resumed}, cancelled: {dropped}"
    output.as_json(told) if as_json else output.echo(line)


def _since(resume: str, *, now: datetime) -> datetime | None:
    """Return the instant from which on what is on hold is sent; None: all of it."""
    if resume == "all":
        return None
    return now if resume == "none" else when("--resume", resume, now=now)


def _advance(place: ReceiverCommand, receiver_id: str) -> None:
    from worker.webhooks.store import redeliver

    after: str | None = ""
    while after is not None:
        with place.engine.begin() as connection:
            after = redeliver.advance_all(connection, receiver_id, after=after)


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--yes", is_flag=True, help="Do not ask; a script has to say it.")
@script
def remove(name: str, tenant: str, yes: bool, as_json: bool) -> None:
    """Remove a receiver: its secrets are forgotten, what waits for it is cancelled, its name is free again."""
    from worker.webhooks.store import receivers, redeliver

    with receiving() as place:
        with place.engine.begin() as connection:
            found = known(connection, tenant, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"there is no terminal to ask at; say that {name} is to be removed with --yes")
            click.confirm(f"Remove {name} and cancel what waits for it?", abort=True, err=True)
        with place.engine.begin() as connection:
            receivers.remove(connection, found.id)
        dropped = batches(place, lambda one: redeliver.drop(one, found.id))
    told = {"tenant": tenant, "name": name, "status": "removed", "cancelled": dropped}
    output.as_json(told) if as_json else output.echo(f"{name} is removed; deliveries cancelled: {dropped}")
