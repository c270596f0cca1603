"""The registration of a receiver: its first keys, its row, and the deliveries that jobs have addressed to its name."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from worker.cli.webhooks.receiver_lookup import ReceiverCommand, batches
from worker.cli.webhooks.receiver_options import check_url
from worker.webhooks.core.registration import Registration
from worker.webhooks.core.signature import BadKey, KeyKind

if TYPE_CHECKING:
    from worker.webhooks.core.signature import SigningKey
    from worker.webhooks.store.placeholders import Adoption
    from worker.webhooks.store.receivers import Sealed
    from worker.webhooks.vault import Vault

# Characters of whsec_… in base64: a key has 64 bytes at most.
_LONGEST_SECRET = 200


def imported_secret(file: TextIO | None) -> str | None:
    """Read the signing secret that a receiver already verifies with; UsageError if the file holds none."""
    if file is None:
        return None
    text = file.read(_LONGEST_SECRET + 1).strip()
    if not text or len(text) > _LONGEST_SECRET:
        raise click.UsageError("--secret-file holds no signing secret; put whsec_… into it and nothing else")
    return text


def add_receiver(
    command: ReceiverCommand,
    chosen: Registration,
    url: str,
    headers: Mapping[str, str],
    *,
    imported: str | None = None,
) -> tuple[dict[str, Any], "Sequence[SigningKey]"]:
    """Register a receiver; return its values for the terminal, and its keys.

    `imported`: a signing secret to use instead of a new one. Deliveries that jobs have addressed to the name before are
    queued now, if the registration subscribes to their events.
    """
    from worker.webhooks.store import placeholders, receivers

    check_url(command, url)
    vault, receiver_id, waiting = command.vault(), str(uuid.uuid4()), None
    with command.engine.begin() as connection:
        keys = _first_keys(imported, receivers.present(connection))
        sealed = _sealed(vault, receiver_id, keys, url, headers)
        # Insert first, then look for a placeholder: the insert waits for a job that names the receiver at this moment.
        if not receivers.add(connection, receiver_id, chosen, sealed):
            found = placeholders.find(connection, chosen.tenant, chosen.name)
            if found is None:
                message = f"{chosen.tenant} has a receiver {chosen.name!r} already; change or remove it"
                raise click.ClickException(message)
            receiver_id = found
            waiting = placeholders.Adoption(receiver_id, chosen, _sealed(vault, receiver_id, keys, url, headers))
            placeholders.reserve(connection, waiting)
    if waiting is not None:
        _adopt(command, waiting)
    return {"id": receiver_id, "tenant": chosen.tenant, "name": chosen.name, "url": sealed.url}, keys


def _adopt(command: ReceiverCommand, waiting: "Adoption") -> None:
    """Turn the placeholder row of a name into the registered receiver, and queue its deliveries on hold."""
    from worker.webhooks.store import placeholders, redeliver

    # In several transactions: there may be a million deliveries, and jobs must be able to end between them.
    registered: bool | None = False
    while registered is False:
        with command.engine.begin() as connection:
            registered = placeholders.adopt(connection, waiting)
    if registered is None:
        name = waiting.registration.name
        raise click.ClickException(
            f"another process registered or removed {name} at the same time; see: afterword webhooks list"
        )
    batches(command, lambda connection: redeliver.resume(connection, waiting.receiver_id))


def _first_keys(imported: str | None, now: datetime) -> "tuple[SigningKey, ...]":
    """Return a key of each kind, both new, or one of them imported."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import import_key

    keys, _ = sealed_fields.new_keys(now)
    if imported is None:
        return keys
    try:
        own = import_key(imported, now)
    except BadKey as error:
        raise click.UsageError(f"--secret-file cannot be used: {error}") from error
    return tuple(own if key.kind is own.kind else key for key in keys)


def _sealed(
    vault: "Vault", receiver_id: str, keys: "Sequence[SigningKey]", url: str, headers: Mapping[str, str]
) -> "Sealed":
    from worker.webhooks import sealed_fields
    from worker.webhooks.store.receivers import Sealed

    return Sealed(
        *sealed_fields.seal_url(vault, receiver_id, url),
        sealed_fields.seal_headers(vault, receiver_id, headers, url=url),
        sealed_fields.seal_keys(vault, receiver_id, keys),
        sealed_fields.public_text(keys),
    )


def hmac_text(keys: "Sequence[SigningKey]") -> str:
    """Return the secret `whsec_…` that signs new deliveries."""
    return next(key.text for key in keys if key.kind is KeyKind.HMAC)
