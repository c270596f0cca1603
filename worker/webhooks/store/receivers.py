"""Receivers' rows: registered, found, changed, disabled, enabled, removed. What is secret in them arrives sealed."""

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
    """The columns of a receiver that `worker.keyring` makes; `url` is the one that is shown."""

    url: str = field(repr=False)
    url_sealed: str | None = field(repr=False)
    headers_sealed: str | None = field(repr=False)
    keys_sealed: str | None = field(repr=False)
    public_key: str | None


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver's row. `tokens_age_s`: since its bucket held `tokens`; `now_s`: Unix time by the database."""

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
        """Its name, which is one of its tenant's."""
        return self.registration.name

    @property
    def is_awaited(self) -> bool:
        """Jobs have named it, and nobody has registered it yet (see store.awaited)."""
        return not self.sealed.url


_ROWS = select(receivers, UNIX_S.label("now_s"), (-seconds_until(receivers.c.tokens_at)).label("tokens_age_s"))
_STANDING = receivers.c.status != "removed"
_SEALED = ("url", "url_sealed", "headers_sealed", "keys_sealed", "public_key")


def present(connection: Connection) -> datetime:
    """Return the present instant by the database."""
    return connection.execute(select(now())).scalar_one()


def add(connection: Connection, receiver_id: str, registration: Registration, sealed: Sealed) -> bool:
    """Register a receiver; False when its tenant has one of that name."""
    values = {"id": receiver_id, "status": "enabled", **_columns(registration), **asdict(sealed)}
    statement = upsert(connection.dialect.name, receivers).on_conflict_do_nothing().returning(receivers.c.id)
    return connection.execute(statement.values(created_at=now(), **values)).first() is not None


def listed(connection: Connection, *, tenant: str | None = None) -> list[Receiver]:
    """Return the receivers that stand, of all tenants or one, by tenant and name."""
    statement = _ROWS.where(_STANDING).order_by(receivers.c.tenant, receivers.c.name)
    return _read(connection, statement if tenant is None else statement.where(receivers.c.tenant == tenant))


def find(connection: Connection, tenant: str, name: str, *, lock: bool = False) -> Receiver | None:
    """Return the receiver of a name. `lock`: nobody else begins, ends or changes anything of it before our commit."""
    statement = _ROWS.where(_STANDING, receivers.c.tenant == tenant, receivers.c.name == name)
    return next(iter(_read(connection, statement.with_for_update() if lock else statement)), None)


def by_id(connection: Connection, receiver_id: str) -> Receiver | None:
    """Return the receiver of an id, also one that was removed."""
    return next(iter(_read(connection, _ROWS.where(receivers.c.id == receiver_id))), None)


def change(
    connection: Connection, receiver_id: str, registration: Registration, sealed: Sealed, *, moved: bool = False
) -> bool:
    """Write new values; False when it was removed. What waits is sent by them; deliveries keep their variant.

    `moved`: to another address, about which the failures and the pauses of the old one say nothing.
    """
    statement = update(receivers).where(receivers.c.id == receiver_id, _STANDING)
    values = {**_columns(registration), **asdict(sealed), **({"health": None} if moved else {})}
    return connection.execute(statement.values(values)).rowcount == 1


def disable(connection: Connection, receiver_id: str, reason: str = BY_OPERATOR) -> bool:
    """Send it nothing more: the dispatcher puts what waits on hold. False when it is not enabled."""
    ordering.lock(connection, [receiver_id])
    enabled = (receivers.c.id == receiver_id, receivers.c.status == "enabled")
    changes = {"status": "disabled", "disabled_reason": reason, "disabled_at": now()}
    return connection.execute(update(receivers).where(*enabled).values(changes)).rowcount == 1


def enable(connection: Connection, receiver_id: str) -> bool:
    """Send to it again, with the health of a new one; False when it was removed. What is on hold stays so.

    Commit before `requeue.resume`: while the row says disabled, the dispatcher puts on hold what is queued.
    """
    ordering.lock(connection, [receiver_id])
    changes: dict[str, Any] = dict.fromkeys(("disabled_reason", "disabled_at", "health"))
    statement = update(receivers).where(receivers.c.id == receiver_id, _STANDING)
    return connection.execute(statement.values(status="enabled", **changes)).rowcount == 1


def remove(connection: Connection, receiver_id: str) -> bool:
    """Take it off the list and forget what is sealed of it; its name is free again. False when it was removed before.

    What is in flight ends by itself. Commit, then let `requeue.drop` cancel what waits.
    """
    ordering.lock(connection, [receiver_id])
    gone = dict.fromkeys(("url_sealed", "headers_sealed", "keys_sealed"))
    statement = update(receivers).where(receivers.c.id == receiver_id, _STANDING)
    return connection.execute(statement.values(status="removed", is_default=False, **gone)).rowcount == 1


def counts(connection: Connection, receiver_id: str) -> dict[str, int]:
    """Return how many of its deliveries stand where."""
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
