"""Worker processes: one row for each, a lease that the process renews, and the leadership that one process holds."""

from sqlalchemy import Connection, delete, func, or_, select, update

from worker.core.clock_offset import TOLERANCE_S
from worker.store import version
from worker.store.bulk_params import upsert
from worker.store.clock import UNIX_S, from_now, now
from worker.store.tables import leaders, workers

# The longest that settings allow, for rows of a release that did not write its own.
_LONGEST_S = 3600.0
# No leadership is that long.
_LONGEST_LEAD_S = 60.0
# A lease also ends where more of it is left than there ever was: it was renewed before the clock was set back.
ENDED = or_(
    workers.c.lease_until <= now(),
    workers.c.lease_until > from_now(func.coalesce(workers.c.lease_s, _LONGEST_S) + TOLERANCE_S),
)


def register(connection: Connection, worker_id: str, *, name: str, slots: int, lease_s: float) -> None:
    """Enter a worker process, which has `slots` calls in flight at most; its lease begins now.

    Once: a commit whose answer was lost with the connection is made again.
    """
    row = {"id": worker_id, "name": name, "slots": slots, "lease_s": lease_s, "release": version.newest()}
    entered = upsert(connection.dialect.name, workers).on_conflict_do_nothing()
    connection.execute(entered.values(**row, started_at=now(), lease_until=from_now(lease_s)))


def renew(connection: Connection, worker_id: str, *, slots: int, lease_s: float) -> float | None:
    """Renew the lease; return Unix time by the database, None when it was taken back and every call must end."""
    renewed = update(workers).where(workers.c.id == worker_id).returning(UNIX_S)
    values = {"slots": slots, "lease_s": lease_s, "lease_until": from_now(lease_s)}
    return connection.execute(renewed.values(**values)).scalar()


def unix_s(connection: Connection) -> float:
    """Return Unix time by the database."""
    return connection.execute(select(UNIX_S)).scalar_one()


def unserved(connection: Connection, oldest: str) -> list[str]:
    """Return the names of living workers whose release is older than `oldest`."""
    older = or_(workers.c.release.is_(None), workers.c.release < oldest)
    statement = select(workers.c.name).where(workers.c.lease_until > now(), older).order_by(workers.c.name)
    return list(connection.scalars(statement))


def resign(connection: Connection, worker_id: str) -> None:
    """Take a worker process off the list, and off the dispatch; its jobs must have been released before."""
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    connection.execute(update(leaders).where(leaders.c.worker_id == worker_id).values(lease_until=now()))


def living(connection: Connection) -> dict[str, int]:
    """Return the workers whose rows stand, and the slots of each."""
    return dict(connection.execute(select(workers.c.id, workers.c.slots)).all())


def lead(connection: Connection, worker_id: str, *, name: str, lease_s: float) -> bool:
    """Take or keep the leadership `name`; False while another worker holds it."""
    over = or_(leaders.c.lease_until <= now(), leaders.c.lease_until > from_now(_LONGEST_LEAD_S))
    free = or_(leaders.c.worker_id == worker_id, over)
    statement = (
        update(leaders).where(leaders.c.name == name, free).values(worker_id=worker_id, lease_until=from_now(lease_s))
    )
    return connection.execute(statement).rowcount == 1
