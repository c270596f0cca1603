"""`webhooks add`: a receiver's first keys, its row, and what jobs have addressed to its name before it was there."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from worker.cli.receiver_lookup import ReceiverCommand, batches
from worker.cli.receiver_options import check_url
from worker.webhooks.core.registration import Registration
from worker.webhooks.core.signing import BadKey, KeyKind

if TYPE_CHECKING:
    from worker.webhooks.core.signing import SigningKey
    from worker.webhooks.store.receivers import Sealed
    from worker.webhooks.store.unregistered import Adoption
    from worker.webhooks.vault import Vault

# Of a text whsec_…: a key has 64 bytes at most.
_LONGEST_SECRET = 200


def secret_of(file: TextIO | None) -> str | None:
    """Read the signing secret that a receiver brings from its last sender; a sentence when there is none."""
    if file is None:
        return None
    text = file.read(_LONGEST_SECRET + 1).strip()
    if not text or len(text) > _LONGEST_SECRET:
        raise click.UsageError("--secret-file holds no signing secret; put whsec_… into it and nothing else")
    return text


def enter(
    place: ReceiverCommand, chosen: Registration, url: str, headers: Mapping[str, str], *, brought: str | None = None
) -> tuple[dict[str, Any], "Sequence[SigningKey]"]:
    """Register a receiver; return what may be shown of it, and its keys.

    `brought`: a signing secret that takes the place of a new one. What jobs have addressed to its name before it was
    there is queued now, as far as it wants it.
    """
    from worker.webhooks.store import receivers, unregistered

    check_url(place, url)
    vault, new, waiting = place.vault(), str(uuid.uuid4()), None
    with place.engine.begin() as connection:
        keys = _first_keys(brought, receivers.present(connection))
        sealed = _sealed(vault, new, keys, url, headers)
        # Before anybody is looked for: it waits for a job that just now is the first to name the receiver.
        if not receivers.add(connection, new, chosen, sealed):
            found = unregistered.find(connection, chosen.tenant, chosen.name)
            if found is None:
                told = f"{chosen.tenant} has a receiver {chosen.name!r} already; change or remove it"
                raise click.ClickException(told)
            new = found
            waiting = unregistered.Adoption(new, chosen, _sealed(vault, new, keys, url, headers))
            unregistered.reserve(connection, waiting)
    if waiting is not None:
        _register_awaited(place, waiting)
    return {"id": new, "tenant": chosen.tenant, "name": chosen.name, "url": sealed.url}, keys


def _register_awaited(place: ReceiverCommand, waiting: "Adoption") -> None:
    from worker.webhooks.store import redeliver, unregistered

    # In transactions of their own: there may be a million, and jobs end meanwhile.
    registered: bool | None = False
    while registered is False:
        with place.engine.begin() as connection:
            registered = unregistered.adopt(connection, waiting)
    if registered is None:
        name = waiting.registration.name
        raise click.ClickException(
            f"somebody else registered or removed {name} meanwhile; see: afterword webhooks list"
        )
    batches(place, lambda one: redeliver.resume(one, waiting.receiver_id))


def _first_keys(brought: str | None, now: datetime) -> "tuple[SigningKey, ...]":
    """Return a key of each kind, both new or one of them brought."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import import_key

    keys, _ = sealed_fields.new_keys(now)
    if brought is None:
        return keys
    try:
        own = import_key(brought, now)
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
    """Return the `whsec_…` that signs from now on."""
    return next(key.text for key in keys if key.kind is KeyKind.HMAC)
