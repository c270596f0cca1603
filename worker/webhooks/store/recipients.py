"""Finds the receivers of a job's event: those that the job names, or its tenant's defaults.

A job may name a receiver that is not registered yet; a placeholder row without a URL is created for it, and
`placeholders` adopts the row later. A job may also carry a URL; a receiver is created for it.
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
from worker.webhooks.store import ordering
from worker.webhooks.store.tables import receivers

# The column `webhook` of a job that wants no webhooks.
NO_RECEIVER = "null"
# The `disabled_reason` of a placeholder; see webhooks.store.placeholders.
NOT_REGISTERED = "not_registered"

_default = exists().where(receivers.c.tenant == jobs.c.tenant, receivers.c.is_default, receivers.c.status != "removed")
# Usually empty in an installation without receivers: a finished batch then costs only one short statement.
_WANTED = select(jobs.c.id, jobs.c.tenant, jobs.c.webhook).where(
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    or_(and_(jobs.c.webhook.is_not(None), jobs.c.webhook != NO_RECEIVER), and_(jobs.c.webhook.is_(None), _default)),
)


class Recipient(NamedTuple):
    """The columns of a receiver that `emit` needs."""

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
    def is_placeholder(self) -> bool:
        """The receiver is not registered: its events, payload, profile and ordering are not known yet."""
        return not self.url

    @property
    def may_change(self) -> bool:
        """Its deliveries depend on the row's state at our commit, so the row must be locked."""
        return self.ordering == "per_key" or self.status != "enabled" or self.is_placeholder


_RECIPIENT = select(*(receivers.c[name] for name in Recipient._fields))
_CANDIDATES = _RECIPIENT.where(
    receivers.c.tenant.in_(bindparam("tenants", expanding=True)),
    receivers.c.status != "removed",
    or_(receivers.c.is_default, receivers.c.name.in_(bindparam("names", expanding=True))),
)


def find_recipients(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[Recipient]]:
    """Return the recipients of each job by job id; jobs without recipients are left out."""
    rows = connection.execute(_WANTED, {"ids": sorted(job_ids)}).all()
    if not rows:
        return {}
    return _lock(connection, {job_id: found for job_id, found in _find_or_create(connection, rows).items() if found})


def _lock(connection: Connection, by_job: Mapping[str, list[Recipient]]) -> dict[str, list[Recipient]]:
    """Lock the receivers that keep an order, are disabled or not registered, and read them again.

    An operator who enables or registers a receiver resumes its held deliveries; without the lock we could put one more
    on hold after that.
    """
    ids = {recipient.id for recipients in by_job.values() for recipient in recipients if recipient.may_change}
    if not ids:
        return dict(by_job)
    ordering.lock(connection, ids)
    locked = {row.id: Recipient._make(row) for row in connection.execute(_RECIPIENT.where(receivers.c.id.in_(ids)))}
    return {
        job_id: [locked.get(recipient.id, recipient) for recipient in recipients]
        for job_id, recipients in by_job.items()
    }


def url_receiver(url: str) -> str:
    """Return the name of the receiver that is created for a job's URL."""
    return f"url-{sha256(url.encode()).hexdigest()[:24]}"


def _find_or_create(connection: Connection, rows: Sequence[Any]) -> dict[str, list[Recipient]]:
    """Return the recipients of each job by job id; create rows for names and URLs that have no receiver yet."""
    targets: dict[str, Mapping[str, str]] = {
        row.id: {} if row.webhook is None else json.loads(row.webhook) for row in rows
    }
    names = {row.id: name_of(targets[row.id]) for row in rows}
    values = {"tenants": sorted({row.tenant for row in rows}), "names": sorted(filter(None, names.values()))}
    candidates = [Recipient._make(row) for row in connection.execute(_CANDIDATES, values)]
    known = {(candidate.tenant, candidate.name) for candidate in candidates}
    missing = {
        (row.tenant, name): targets[row.id].get("url")
        for row in rows
        if (name := names[row.id]) is not None and (row.tenant, name) not in known
    }
    if missing:
        _create(connection, missing)
        candidates = [Recipient._make(row) for row in connection.execute(_CANDIDATES, values)]
    found: dict[str, list[Recipient]] = {}
    for row in rows:
        name = names[row.id]
        of_tenant = [candidate for candidate in candidates if candidate.tenant == row.tenant]
        found[row.id] = [
            candidate for candidate in of_tenant if (candidate.is_default if name is None else candidate.name == name)
        ]
    return found


def name_of(target: Mapping[str, str]) -> str | None:
    """Return the receiver's name for a job's `webhook` (`{"to": …}` or `{"url": …}`); None: the tenant's defaults."""
    return url_receiver(target["url"]) if "url" in target else target.get("to")


def _create(connection: Connection, missing: Mapping[tuple[str, str], str | None]) -> None:
    """Create receivers without keys by (tenant, name): enabled with a URL, disabled placeholders without one."""
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
