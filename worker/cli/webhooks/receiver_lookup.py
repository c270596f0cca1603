"""Parts of the commands on receivers: open the database and the vault, find a receiver or a delivery."""

from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from worker.cli.support.database import writer
from worker.cli.support.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from worker.settings import Settings
    from worker.webhooks.core.explain import ReceiverState
    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault


@dataclass(frozen=True, slots=True)
class ReceiverCommand:
    """An open database and the settings of the command."""

    engine: "Engine"
    settings: "Settings"

    def vault(self) -> "Vault":
        """Return the vault that encrypts and decrypts secrets; BadMasterKeys if no key is set."""
        from worker.webhooks.vault import Vault

        return Vault(self.settings.secret_keys)


@contextmanager
def receiving() -> "Iterator[ReceiverCommand]":
    """Open the database of the settings."""
    settings = load()
    with writer(settings) as engine:
        yield ReceiverCommand(engine, settings)


def registered(connection: "Connection", owner: str, name: str, *, lock: bool = False) -> "Receiver":
    """Return a tenant's receiver; a sentence if it does not exist, or if only jobs have named it so far."""
    found = known(connection, owner, name, lock=lock)
    if found.is_placeholder:
        option = "" if owner == "default" else f" --tenant {owner}"
        raise click.ClickException(
            f"{name} is not registered yet; jobs have named it, and their deliveries are on hold. "
            f"Register it with: afterword webhooks add {name} URL{option}"
        )
    return found


def known(connection: "Connection", owner: str, name: str, *, lock: bool = False) -> "Receiver":
    """Return a tenant's receiver, registered or not; a sentence with the nearest name if there is none."""
    from worker.webhooks.store import receivers

    found = receivers.find(connection, owner, name, lock=lock)
    if found is not None:
        return found
    names = [receiver.name for receiver in receivers.listed(connection, tenant=owner)]
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else "see: afterword webhooks list"
    raise click.ClickException(f"{owner} has no receiver {name!r}; {remedy}")


def state_of(receiver: "Receiver", in_flight: int) -> "ReceiverState":
    """Return a receiver's present state, the source of the sentences about it."""
    from worker.webhooks.core.explain import ReceiverState

    chosen, tokens = receiver.registration, None
    if chosen.rate_per_s is not None and receiver.tokens is not None and receiver.tokens_age_s is not None:
        tokens = receiver.tokens + chosen.rate_per_s * max(0.0, receiver.tokens_age_s)
    return ReceiverState(
        name=receiver.name,
        status=receiver.status,
        disabled_reason=receiver.disabled_reason,
        health=receiver.health,
        in_flight=in_flight,
        limit=chosen.in_flight,
        rate_per_s=chosen.rate_per_s,
        tokens=tokens,
        now_s=receiver.now_s,
    )


def stored_id(text: str) -> str:
    """Return an id as it is stored; UsageError if the text is not a UUID."""
    import uuid

    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no id; an id is a UUID") from error


def batches(command: ReceiverCommand, step: "Callable[[Connection], int]") -> int:
    """Repeat a step, each time in its own transaction, until it returns 0; return the sum."""
    total = 0
    while True:
        with command.engine.begin() as connection:
            done = step(connection)
        total += done
        if not done:
            return total
