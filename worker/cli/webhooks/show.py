"""`afterword webhooks list` and `show`: receivers, their health and settings, never a secret."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.webhooks.receiver_lookup import ReceiverCommand, known, receiving, state_of

if TYPE_CHECKING:
    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault

COLUMNS = ["tenant", "name", "url", "status", "is_default", "events", "health"]
PLAIN = ("is_default", "timeout_s", "schedule", "rate_per_s", "in_flight", "ordering", "on_exhausted")


@click.command(
    "list",
    epilog=examples(
        "afterword webhooks list",
        "afterword webhooks list --tenant acme --json",
    ),
)
@click.option("--tenant", help="Only receivers of this tenant.")
@json_option
def list_(tenant: str | None, as_json: bool) -> None:
    """List the receivers and their health."""
    from worker.webhooks.core.explain import health_lines
    from worker.webhooks.store import listing, receivers

    with receiving() as command, command.engine.begin() as connection:
        found = receivers.listed(connection, tenant=tenant)
        in_flight = listing.in_flight(connection, [receiver.id for receiver in found])
    states = [state_of(receiver, in_flight.get(receiver.id, 0)) for receiver in found]
    shown = [
        described(receiver) | {"health": next(health_lines(state))}
        for receiver, state in zip(found, states, strict=True)
    ]
    if as_json:
        output.as_json(shown)
    else:
        output.echo(output.rows(COLUMNS, shown) if shown else "no receivers")


@click.command(
    epilog=examples(
        "afterword webhooks show billing",
        "afterword webhooks show billing --tenant acme --json",
    )
)
@click.argument("name")
@tenant_option
@json_option
def show(name: str, tenant: str, as_json: bool) -> None:
    """Show a receiver: settings, health, deliveries, keys.

    Signing keys are shown by their fingerprints, headers by their names.
    """
    from worker.webhooks.core.explain import health_lines
    from worker.webhooks.store import receivers

    with receiving() as command, command.engine.begin() as connection:
        found = known(connection, tenant, name)
        counts = receivers.counts(connection, found.id)
        shown = described(found) | {
            "health": list(health_lines(state_of(found, counts.get("in_progress", 0)))),
            "deliveries": counts,
            **_secrets(command, found),
        }
    if as_json:
        output.as_json(shown)
        return
    lines = shown | {name: "; ".join(shown[name]) for name in ("health", "headers", "keys")}
    counted = ", ".join(f"{number} {status}" for status, number in counts.items()) or "none"
    output.echo(output.fields(lines | {"deliveries": counted}))


def described(receiver: "Receiver") -> dict[str, Any]:
    """Return the values of a receiver that are no secret, by column."""
    from worker.webhooks import sealed_fields

    chosen = receiver.registration
    values = {name: getattr(chosen, name) for name in ("tenant", "name")}
    values["url"] = sealed_fields.shown_url(receiver.sealed.url)
    values |= {"has_hidden_query": receiver.sealed.url_sealed is not None or "?" in receiver.sealed.url}
    values |= {name: getattr(chosen.subscription, name) for name in ("events", "payload", "profile")}
    values |= {name: getattr(chosen, name) for name in PLAIN}
    values |= {
        name: output.json_value(getattr(receiver, name)) for name in ("id", "status", "disabled_reason", "disabled_at")
    }
    lists = {name: list(values[name]) for name in ("events", "schedule") if values[name] is not None}
    created_at = output.json_value(receiver.created_at)
    return values | lists | {"created_at": created_at, "public_key": receiver.sealed.public_key}


def print_secrets(values: Mapping[str, Any], *, secret: str | None, public_key: str | None, as_json: bool) -> None:
    """Print a receiver's new keys. This is the only time that `secret` is shown."""
    from worker.webhooks.vault import fingerprint

    shown = {**values, "secret": secret, "public_key": public_key}
    if secret is not None:
        shown["fingerprint"] = fingerprint(secret)
    if as_json:
        output.as_json(shown)
        return
    output.echo(output.fields(shown))
    if secret is not None:
        output.echo("\nThe secret is shown only once. Give it to the owner of the receiver.", err=True)


def _secrets(command: ReceiverCommand, receiver: "Receiver") -> dict[str, list[str]]:
    """Return the names of the headers and the fingerprints of the keys, or the reason why they cannot be read."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import BadMasterKeys, fingerprint

    try:
        vault = command.vault()
    except BadMasterKeys as error:
        return {"headers": [], "keys": [str(error)]}
    sealed = receiver.sealed
    headers = _opened(lambda: list(_headers(vault, receiver)))
    keys = _opened(
        lambda: [
            f"{key.kind} {fingerprint(key.text)}"
            + (f" until {output.json_value(key.expires_at)}" if key.expires_at else "")
            for key in sealed_fields.keys_of(vault, receiver.id, sealed.keys_sealed)
        ]
    )
    return {"headers": headers, "keys": keys or ["none yet: its first delivery makes them"]}


def _headers(vault: "Vault", receiver: "Receiver") -> dict[str, str]:
    from worker.webhooks import sealed_fields

    sealed = receiver.sealed
    url = sealed_fields.url_of(vault, receiver.id, sealed.url, sealed.url_sealed)
    return sealed_fields.headers_of(vault, receiver.id, sealed.headers_sealed, url=url)


def _opened(read: Callable[[], list[str]]) -> list[str]:
    from worker.webhooks.vault import CannotOpen

    try:
        return read()
    except CannotOpen as error:
        return [str(error)]
