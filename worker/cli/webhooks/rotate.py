"""`afterword webhooks rotate`: give a receiver a new signing secret."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.support.times import LONGEST_S, Duration
from worker.cli.webhooks.receiver_lookup import receiving, registered
from worker.cli.webhooks.show import print_secrets
from worker.webhooks.core.signature import KeyKind, rotated

if TYPE_CHECKING:
    from worker.webhooks.core.signature import SigningKey
    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault


@click.command(
    epilog=examples(
        "afterword webhooks rotate billing",
        "afterword webhooks rotate billing --overlap 7d",
        "afterword webhooks rotate billing --overlap 0   # the old secret has leaked",
    )
)
@click.argument("name")
@tenant_option
@click.option(
    "--overlap",
    "overlap_s",
    type=Duration(low=0, high=LONGEST_S),
    default="24h",
    show_default=True,
    help="The old secret signs too for this long: 90s, 24h, 7d; 0 if it has leaked.",
)
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in KeyKind]),
    default="hmac",
    show_default=True,
    help="The key to replace.",
)
@json_option
def rotate(name: str, tenant: str, overlap_s: float, kind: str, as_json: bool) -> None:
    """Give a receiver a new signing secret and print it.

    The secret is never shown again. Until the overlap ends, each delivery has two signatures, one with each secret.
    """
    from worker.webhooks import sealed_fields
    from worker.webhooks.store import receivers

    overlap = timedelta(seconds=overlap_s)
    with receiving() as command:
        vault = command.vault()
        with command.engine.begin() as connection:
            found = registered(connection, tenant, name, lock=True)
            now = receivers.present(connection)
            keys = _rotated(vault, found, KeyKind(kind), now=now, overlap=overlap)
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
    """Return the keys with a new one first; only new keys if there are none, or if none opens and overlap is 0."""
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
