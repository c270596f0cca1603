"""Who hears of a job's end: the receivers it names, those made for what is not there yet, its tenant's defaults.

What names a receiver that nobody has registered makes one without an address, which `unregistered` knows about.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, exists, or_, select

from worker.store.bulk_params import upsert
from worker.store.clock import now
from worker.store.tables import jobs
from worker.webhooks.core.event import Payload
from worker.webhooks.core.payload import Profile
from worker.webhooks.core.registration import IN_FLIGHT, TIMEOUT_S
from worker.webhooks.core.subscription import EVERY_JOB
from worker.webhooks.store import ordering as order
from worker.webhooks.store.tables import receivers

NOBODY = "null"
# What is shown as the reason of a receiver that jobs have named and nobody has registered; see store.awaited.
NOT_REGISTERED = "not_registered"

_default = exists().where(receivers.c.tenant == jobs.c.tenant, receivers.c.is_default, receivers.c.status != "removed")
# Nearly always empty where nobody has a receiver, so that telling costs a finished batch one short statement.
_WANTED = select(jobs.c.id, jobs.c.tenant, jobs.c.webhook).where(
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    or_(and_(jobs.c.webhook.is_not(None), jobs.c.webhook != NOBODY), and_(jobs.c.webhook.is_(None), _default)),
)


class Recipient(NamedTuple):
    """What telling needs to know of a receiver."""

    id: str
    tenant: str
    name: str
    url: str
    is_default: bool
    events: str
    payload: str
    profile: str
    ordering: str
    status: str

    @property
    def is_awaited(self) -> bool:
        """Nobody has registered it: which events and bodies it wants, and in which order, is not known yet."""
        return not self.url

    @property
    def may_change(self) -> bool:
        """What is written for it hangs on its row as it stands at our commit."""
        return self.ordering == "per_key" or self.status != "enabled" or self.is_awaited


_LISTENER = select(*(receivers.c[name] for name in Recipient._fields))
_LISTENERS = _LISTENER.where(
    receivers.c.tenant.in_(bindparam("tenants", expanding=True)),
    receivers.c.status != "removed",
    or_(receivers.c.is_default, receivers.c.name.in_(bindparam("names", expanding=True))),
)


def audience(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[Recipient]]:
    """Return who hears of these jobs, by their ids; nothing of those that nobody hears of."""
    wanted = connection.execute(_WANTED, {"ids": sorted(job_ids)}).all()
    if not wanted:
        return {}
    return _locked(connection, {job_id: found for job_id, found in _named(connection, wanted).items() if found})


def _locked(connection: Connection, heard: Mapping[str, list[Recipient]]) -> dict[str, list[Recipient]]:
    """Lock the receivers that keep an order, are disabled or not registered; return all as they stand now.

    Who enables or registers a receiver resumes what is on hold: nothing may be put there after that.
    """
    ids = {one.id for listeners in heard.values() for one in listeners if one.may_change}
    if not ids:
        return dict(heard)
    order.lock(connection, ids)
    now_so = {row.id: Recipient._make(row) for row in connection.execute(_LISTENER.where(receivers.c.id.in_(ids)))}
    return {job_id: [now_so.get(one.id, one) for one in listeners] for job_id, listeners in heard.items()}


def url_receiver(url: str) -> str:
    """Return the name of the receiver made for an address that jobs carry."""
    return f"url-{sha256(url.encode()).hexdigest()[:24]}"


def _named(connection: Connection, rows: Sequence[Any]) -> dict[str, list[Recipient]]:
    """Return the receivers of each job by its id; those that are named or brought and not there yet are made."""
    targets: dict[str, Mapping[str, str]] = {
        row.id: {} if row.webhook is None else json.loads(row.webhook) for row in rows
    }
    wanted = {row.id: name_of(targets[row.id]) for row in rows}
    values = {"tenants": sorted({row.tenant for row in rows}), "names": sorted(filter(None, wanted.values()))}
    known = [Recipient._make(row) for row in connection.execute(_LISTENERS, values)]
    there = {(one.tenant, one.name) for one in known}
    missing = {
        (row.tenant, name): targets[row.id].get("url")
        for row in rows
        if (name := wanted[row.id]) is not None and (row.tenant, name) not in there
    }
    if missing:
        _make(connection, missing)
        known = [Recipient._make(row) for row in connection.execute(_LISTENERS, values)]
    found: dict[str, list[Recipient]] = {}
    for row in rows:
        name = wanted[row.id]
        mine = [one for one in known if one.tenant == row.tenant]
        found[row.id] = [one for one in mine if (one.is_default if name is None else one.name == name)]
    return found


def name_of(target: Mapping[str, str]) -> str | None:
    """Return the name of the receiver that a job's `webhook` means; None: its tenant's defaults."""
    return url_receiver(target["url"]) if "url" in target else target.get("to")


def _make(connection: Connection, missing: Mapping[tuple[str, str], str | None]) -> None:
    """Make receivers by tenant and name: of an address, whose keys its first delivery makes, or of a name alone."""
    rows = [
        {
            "id": str(uuid.uuid4()),
            "tenant": tenant,
            "name": name,
            "url": url or "",
            "is_default": False,
            "events": json.dumps([EVERY_JOB]),
            "payload": Payload.auto,
            "profile": Profile.afterword,
            "timeout_s": TIMEOUT_S,
            "in_flight": IN_FLIGHT,
            "ordering": "none",
            "on_exhausted": "skip",
            "status": "enabled" if url else "disabled",
            "disabled_reason": None if url else NOT_REGISTERED,
        }
        for (tenant, name), url in sorted(missing.items())
    ]
    statement = upsert(connection.dialect.name, receivers).on_conflict_do_nothing().values(created_at=now())
    connection.execute(statement, rows)
