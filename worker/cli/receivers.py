"""Commands on receivers of webhooks: add, change, list, show. A secret is printed once, by what makes it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from worker.cli import main, output
from worker.cli.jobs import script
from worker.cli.receiver_lookup import ReceiverCommand, known, plain, receiving, registered, standing
from worker.cli.receiver_lookup import tenant as of_tenant
from worker.cli.receiver_options import check_url, given_values, header_lines, merged, registration, resealed, values
from worker.cli.receiver_registration import enter, hmac_text, secret_of
from worker.webhooks.core.explain import health_lines

if TYPE_CHECKING:
    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault

COLUMNS = ["tenant", "name", "url", "status", "is_default", "events", "health"]


@main.group()
def webhooks() -> None:
    """Look after receivers of webhooks and what is sent to them."""


@webhooks.command()
@click.argument("name")
@click.argument("url")
@of_tenant
@click.option("--default", "is_default", is_flag=True, help="It is told of its tenant's jobs that name no receiver.")
@click.option("--secret-file", type=click.File(), help="Its whsec_ secret of before, in a file (- for standard input).")
@values
@script
def add(
    name: str,
    url: str,
    headers: Sequence[str],
    header_file: TextIO | None,
    secret_file: TextIO | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Register a receiver, and print its signing secret, which is never shown again.

    One that verifies with a secret already keeps it: give it with --secret-file, and it is not printed.
    """
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import fingerprint

    chosen = registration(name, given_values(given))
    brought = secret_of(secret_file)
    with receiving() as place:
        told, keys = enter(place, chosen, url, header_lines(headers, header_file), brought=brought)
    secret = hmac_text(keys)
    print_secrets(
        told | {"fingerprint": fingerprint(secret)},
        secret=None if secret == brought else secret,
        public_key=sealed_fields.public_text(keys),
        as_json=as_json,
    )


@webhooks.command()
@click.argument("name")
@of_tenant
@click.option("--url", help="Another address.")
@click.option("--default/--no-default", "is_default", default=None, help="Whether it is told by default.")
@click.option("--drop-header", "dropped", multiple=True, metavar="NAME", help="A header that is sent no more.")
@values
@script
def change(
    name: str,
    tenant: str,
    url: str | None,
    headers: Sequence[str],
    header_file: TextIO | None,
    dropped: Sequence[str],
    as_json: bool,
    **given: Any,
) -> None:
    """Change a receiver. What is not named stays; --event replaces all events, --header one header."""
    from worker.webhooks.store import receivers

    wanted, more = given_values(given), header_lines(headers, header_file)
    with receiving() as place:
        if url is not None:
            check_url(place, url)
        with place.engine.begin() as connection:
            old = registered(connection, tenant, name, lock=True)
            chosen = registration(name, merged(old.registration, wanted), old=True)
            sealed = resealed(place, old, url=url, headers=more, dropped=dropped)
            receivers.change(connection, old.id, chosen, sealed, moved=url is not None)
            told = described(known(connection, tenant, name))
    output.as_json(told) if as_json else output.echo(output.fields(told))


@webhooks.command("list")
@click.option("--tenant", help="Only receivers of this tenant.")
@script
def list_(tenant: str | None, as_json: bool) -> None:
    """List the receivers."""
    from worker.webhooks.store import listing, receivers

    with receiving() as place, place.engine.begin() as connection:
        found = receivers.listed(connection, tenant=tenant)
        flying = listing.in_flight(connection, [one.id for one in found])
    told = [described(one) | {"health": next(health_lines(standing(one, flying.get(one.id, 0))))} for one in found]
    if as_json:
        output.as_json(told)
    else:
        output.echo(output.rows(COLUMNS, told) if told else "no receivers")


@webhooks.command()
@click.argument("name")
@of_tenant
@script
def show(name: str, tenant: str, as_json: bool) -> None:
    """Show a receiver: what it is sent, how it is, what waits for it, its keys by their fingerprints."""
    from worker.webhooks.store import receivers

    with receiving() as place, place.engine.begin() as connection:
        found = known(connection, tenant, name)
        counts = receivers.counts(connection, found.id)
        told = described(found) | {
            "health": list(health_lines(standing(found, counts.get("in_progress", 0)))),
            "deliveries": counts,
            **_secrets(place, found),
        }
    if as_json:
        output.as_json(told)
        return
    lines = told | {name: "; ".join(told[name]) for name in ("health", "headers", "keys")}
    output.echo(output.fields(lines | {"deliveries": ", ".join(f"{n} {word}" for word, n in counts.items()) or "none"}))


def described(receiver: "Receiver") -> dict[str, Any]:
    """Return what may be shown of a receiver, by column."""
    from worker.webhooks import sealed_fields

    chosen = receiver.registration
    values = {name: getattr(chosen, name) for name in ("tenant", "name")}
    values["url"] = sealed_fields.shown_url(receiver.sealed.url)
    values |= {"has_hidden_query": receiver.sealed.url_sealed is not None or "?" in receiver.sealed.url}
    values |= {name: getattr(chosen.subscription, name) for name in ("events", "payload", "profile")}
    plainly = ("is_default", "timeout_s", "schedule", "rate_per_s", "in_flight", "ordering", "on_exhausted")
    values |= {name: getattr(chosen, name) for name in plainly}
    values |= {name: plain(getattr(receiver, name)) for name in ("id", "status", "disabled_reason", "disabled_at")}
    lists = {name: list(values[name]) for name in ("events", "schedule") if values[name] is not None}
    return values | lists | {"created_at": plain(receiver.created_at), "public_key": receiver.sealed.public_key}


def print_secrets(told: Mapping[str, Any], *, secret: str | None, public_key: str | None, as_json: bool) -> None:
    """Print the texts a receiver's owner needs, `secret` for the only time."""
    from worker.webhooks.vault import fingerprint

    shown = {**told, "secret": secret, "public_key": public_key}
    if secret is not None:
        shown["fingerprint"] = fingerprint(secret)
    if as_json:
        output.as_json(shown)
        return
    output.echo(output.fields(shown))
    if secret is not None:
        output.echo("\nThe secret is shown this once: give it to whoever runs the receiver.", err=True)


def _secrets(place: ReceiverCommand, receiver: "Receiver") -> dict[str, list[str]]:
    """Return the names of its headers and its keys by fingerprints, or why they cannot be told."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import BadMasterKeys, fingerprint

    try:
        vault = place.vault()
    except BadMasterKeys as error:
        return {"headers": [], "keys": [str(error)]}
    sealed = receiver.sealed
    headers = _opened(lambda: list(_headers(vault, receiver)))
    keys = _opened(
        lambda: [
            f"{key.kind} {fingerprint(key.text)}" + (f" until {plain(key.expires_at)}" if key.expires_at else "")
            for key in sealed_fields.keys_of(vault, receiver.id, sealed.keys_sealed)
        ]
    )
    return {"headers": headers, "keys": keys or ["none yet: its first delivery makes them"]}


def _headers(vault: "Vault", receiver: "Receiver") -> dict[str, str]:
    from worker.webhooks import sealed_fields

    sealed = receiver.sealed
    url = sealed_fields.url_of(vault, receiver.id, sealed.url, sealed.url_sealed)
    return sealed_fields.headers_of(vault, receiver.id, sealed.headers_sealed, url=url)


def _opened(told: Callable[[], list[str]]) -> list[str]:
    from worker.webhooks.vault import CannotOpen

    try:
        return told()
    except CannotOpen as error:
        return [str(error)]
