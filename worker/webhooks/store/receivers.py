"""Receivers' rows: add, find, change, disable, enable, remove. Used by `afterword webhooks`. Secrets arrive sealed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from worker.store.bulk_params import upsert
from worker.store.clock import UNIX_S, now, seconds_until
from worker.webhooks.core.event import Payload
from worker.webhooks.core.payload import Profile
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.registration import Registration
from worker.webhooks.core.subscription import Subscription
from worker.webhooks.store import ordering
from worker.webhooks.store.health_column import health_of
from worker.webhooks.store.tables import deliveries, receivers

BY_OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Sealed:
    """The columns of a receiver that `webhooks.sealed_fields` makes; `url` is the address without its query."""

    url: str = field(repr=False)
    url_sealed: str | None = field(repr=False)
    headers_sealed: str | None = field(repr=False)
    keys_sealed: str | None = field(repr=False)
    public_key: str | None


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver's row. `tokens_age_s`: seconds since its bucket held `tokens`; `now_s`: the database's Unix time."""

    id: str
    registration: Registration
    sealed: Sealed
    status: str
    disabled_reason: str | None
    disabled_at: datetime | None
    created_at: datetime
    health: ReceiverHealth
    tokens: float | None
    tokens_age_s: float | None
    now_s: float

    @property
    def name(self) -> str:
        """The receiver's name, unique in its tenant."""
        return self.registration.name

    @property
    def is_placeholder(self) -> bool:
        """Jobs have named the receiver, but it is not registered: see webhooks.store.placeholders."""
        return not self.sealed.url


_ROWS = select(receivers, UNIX_S.label("now_s"), (-seconds_until(receivers.c.tokens_at)).label("tokens_age_s"))
_EXISTS = receivers.c.status != "removed"
_SEALED = ("url", "url_sealed", "headers_sealed", "keys_sealed", "public_key")


def present(connection: Connection) -> datetime:
    """Return the database's current time."""
    return connection.execute(select(now())).scalar_one()


def add(connection: Connection, receiver_id: str, registration: Registration, sealed: Sealed) -> bool:
    """Register a receiver; False when its tenant already has a receiver with that name."""
    values = {"id": receiver_id, "status": "enabled", **_columns(registration), **asdict(sealed)}
    statement = upsert(connection.dialect.name, receivers).on_conflict_do_nothing().returning(receivers.c.id)
    return connection.execute(statement.values(created_at=now(), **values)).first() is not None


def listed(connection: Connection, *, tenant: str | None = None) -> list[Receiver]:
    """Return the receivers that are not removed, of all tenants or one, by tenant and name."""
    statement = _ROWS.where(_EXISTS).order_by(receivers.c.tenant, receivers.c.name)
    return _read(connection, statement if tenant is None else statement.where(receivers.c.tenant == tenant))


def find(connection: Connection, tenant: str, name: str, *, lock: bool = False) -> Receiver | None:
    """Return the receiver of a name. `lock`: until our commit no other transaction changes it or its deliveries."""
    statement = _ROWS.where(_EXISTS, receivers.c.tenant == tenant, receivers.c.name == name)
    return next(iter(_read(connection, statement.with_for_update() if lock else statement)), None)


def by_id(connection: Connection, receiver_id: str) -> Receiver | None:
    """Return the receiver of an id, also if it was removed."""
    return next(iter(_read(connection, _ROWS.where(receivers.c.id == receiver_id))), None)


def change(
    connection: Connection, receiver_id: str, registration: Registration, sealed: Sealed, *, moved: bool = False
) -> bool:
    """Write new values; False if the receiver was removed. Waiting deliveries use them, but keep their variant.

    `moved`: the address is new, so the failures and pauses of the old address are forgotten.
    """
    statement = update(receivers).where(receivers.c.id == receiver_id, _EXISTS)
    values = {**_columns(registration), **asdict(sealed), **({"health": None} if moved else {})}
    return connection.execute(statement.values(values)).rowcount == 1


def disable(connection: Connection, receiver_id: str, reason: str = BY_OPERATOR) -> bool:
    """Disable a receiver; the dispatcher then puts its queued deliveries on hold. False if it is not enabled."""
    ordering.lock(connection, [receiver_id])
    enabled = (receivers.c.id == receiver_id, receivers.c.status == "enabled")
    changes = {"status": "disabled", "disabled_reason": reason, "disabled_at": now()}
    return connection.execute(update(receivers).where(*enabled).values(changes)).rowcount == 1


def enable(connection: Connection, receiver_id: str) -> bool:
    """Enable a receiver, with the health of a new receiver; False if it was removed. Held deliveries stay on hold.

    Commit before `redeliver.resume`: while the row is disabled, the dispatcher puts queued deliveries on hold.
    """
    ordering.lock(connection, [receiver_id])
    changes: dict[str, Any] = dict.fromkeys(("disabled_reason", "disabled_at", "health"))
    statement = update(receivers).where(receivers.c.id == receiver_id, _EXISTS)
    return connection.execute(statement.values(status="enabled", **changes)).rowcount == 1


def remove(connection: Connection, receiver_id: str) -> bool:
    """Remove a receiver and delete its sealed values; its name is free again. False if it was removed before.

    Deliveries in flight end by themselves. Commit, then call `redeliver.drop` to cancel the waiting ones.
    """
    ordering.lock(connection, [receiver_id])
    no_secrets = dict.fromkeys(("url_sealed", "headers_sealed", "keys_sealed"))
    statement = update(receivers).where(receivers.c.id == receiver_id, _EXISTS)
    return connection.execute(statement.values(status="removed", is_default=False, **no_secrets)).rowcount == 1


def counts(connection: Connection, receiver_id: str) -> dict[str, int]:
    """Return the number of a receiver's deliveries, by status."""
    found = select(deliveries.c.status, func.count()).where(deliveries.c.receiver_id == receiver_id)
    return {row[0]: row[1] for row in connection.execute(found.group_by(deliveries.c.status))}


def _columns(registration: Registration) -> dict[str, Any]:
    values = {name: getattr(registration, name) for name in registration.__slots__}
    subscription, schedule = values.pop("subscription"), values.pop("schedule")
    return values | {
        "events": json.dumps(subscription.events),
        "payload": subscription.payload,
        "profile": subscription.profile,
        "schedule": None if schedule is None else json.dumps(schedule),
    }


def _read(connection: Connection, statement: Select[Any]) -> list[Receiver]:
    return [_receiver(row) for row in connection.execute(statement)]


def _receiver(row: Row[Any]) -> Receiver:
    columns = dict(row._mapping)
    return Receiver(
        registration=_registration(columns),
        sealed=Sealed(**{name: columns[name] for name in _SEALED}),
        health=health_of(row.health),
        **{name: columns[name] for name in ("id", "status", "disabled_reason", "disabled_at", "created_at")},
        **{name: columns[name] for name in ("tokens", "tokens_age_s", "now_s")},
    )


def _registration(columns: Mapping[str, Any]) -> Registration:
    plain = ("name", "tenant", "is_default", "timeout_s", "rate_per_s", "in_flight", "ordering", "on_exhausted")
    schedule = columns["schedule"]
    return Registration(
        subscription=Subscription(
            tuple(json.loads(columns["events"])), Payload(columns["payload"]), Profile(columns["profile"])
        ),
        schedule=None if schedule is None else tuple(json.loads(schedule)),
        **{name: columns[name] for name in plain},
    )
