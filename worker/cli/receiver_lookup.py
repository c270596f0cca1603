"""What the commands on receivers share: finding one or saying that there is none, times as people write them."""

import json
import re
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from worker.cli import output
from worker.cli.database import writer
from worker.jobs.core.message_fields import instant
from worker.settings import Settings, load
from worker.webhooks.core.explain import ReceiverState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine, Row

    from worker.webhooks.store.receivers import Receiver
    from worker.webhooks.vault import Vault

_SPAN = re.compile(r"(\d{1,9})(s|m|h|d)?", re.ASCII)
_JSON = frozenset({"response_headers", "statuses"})
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

tenant = click.option("--tenant", default="default", show_default=True, help="Whose receiver it is.")


@dataclass(frozen=True, slots=True)
class ReceiverCommand:
    """An open database with the settings it came from."""

    engine: "Engine"
    settings: Settings

    def vault(self) -> "Vault":
        """Return what seals and opens secrets; BadMasterKeys where no key is set."""
        from worker.webhooks.vault import Vault

        return Vault(self.settings.secret_keys)


@contextmanager
def receiving() -> "Iterator[ReceiverCommand]":
    """Open the database of this process's settings."""
    settings = load()
    with writer(settings) as engine:
        yield ReceiverCommand(engine, settings)


def registered(connection: "Connection", owner: str, name: str, *, lock: bool = False) -> "Receiver":
    """Return a tenant's receiver; a sentence when there is none, or only jobs have named it."""
    found = known(connection, owner, name, lock=lock)
    if found.is_awaited:
        option = "" if owner == "default" else f" --tenant {owner}"
        raise click.ClickException(
            f"nobody has registered {name} yet; jobs have named it, and what they have to say is on hold. "
            f"Register it with: afterword webhooks add {name} URL{option}"
        )
    return found


def known(connection: "Connection", owner: str, name: str, *, lock: bool = False) -> "Receiver":
    """Return a tenant's receiver, also an awaited one; a sentence with the nearest name when there is none."""
    from worker.webhooks.store import receivers

    found = receivers.find(connection, owner, name, lock=lock)
    if found is not None:
        return found
    names = [one.name for one in receivers.listed(connection, tenant=owner)]
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else "see: afterword webhooks list"
    raise click.ClickException(f"{owner} has no receiver {name!r}; {remedy}")


def standing(receiver: "Receiver", in_flight: int) -> ReceiverState:
    """Return a receiver as it is now, for the words about it."""
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


def span(option: str, text: str) -> timedelta:
    """Read a span of time such as `30`, `45m`, `24h` or `7d`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise click.UsageError(f"{option} is {text!r}; write a span such as 90s, 45m, 24h or 7d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def when(option: str, text: str, *, now: datetime) -> datetime:
    """Read an instant, `2026-11-24T03:00:00Z`, or how long ago it was, `6h`."""
    try:
        return now - span(option, text) if _SPAN.fullmatch(text) else instant(text)
    except (ValueError, OverflowError) as error:
        message = f"{option} is {text!r}; write 2026-11-24T03:00:00Z, or how long ago it was, such as 6h"
        raise click.UsageError(message) from error


def delivery_id(text: str) -> str:
    """Return an id as it is stored; a sentence when the text is none."""
    import uuid

    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no id; an id is a UUID") from error


def plain_row(row: "Row[Any]", *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return a row by column as JSON has it, without the columns `but`."""
    return {
        name: json.loads(value) if name in _JSON and value is not None else plain(value)
        for name, value in row._mapping.items()
        if name not in but
    }


def plain(value: Any) -> Any:
    """Return a value as JSON has it: instants as the views write them, bytes as text."""
    return output.plain(value) if isinstance(value, datetime | bytes | memoryview) else value


def batches(place: ReceiverCommand, step: "Callable[[Connection], int]") -> int:
    """Take a step, a transaction each, until one does nothing; return the sum of what they did."""
    total = 0
    while True:
        with place.engine.begin() as connection:
            done = step(connection)
        total += done
        if not done:
            return total
