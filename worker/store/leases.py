"""The table of worker processes, one row with a lease for each, and the leadership that one process holds."""

from sqlalchemy import Connection, delete, func, or_, select, update

from worker.core.clock_offset import TOLERANCE_S
from worker.store import version
from worker.store.bulk_params import upsert
from worker.store.clock import UNIX_S, from_now, now
from worker.store.tables import leaders, workers

# The longest lease_s that the settings allow, for rows of older releases without a lease_s.
_LONGEST_LEASE_S = 3600.0
# Longer than any leadership.
_LONGEST_LEADERSHIP_S = 60.0
# A lease has also ended if more than its whole length is left: the database's clock was set back after the renewal.
ENDED = or_(
    workers.c.lease_until <= now(),
    workers.c.lease_until > from_now(func.coalesce(workers.c.lease_s, _LONGEST_LEASE_S) + TOLERANCE_S),
)


def register(connection: Connection, worker_id: str, *, name: str, slots: int, lease_s: float) -> None:
    """Insert the row of a worker process with at most `slots` calls in flight; its lease starts now.

    A second call changes nothing: the caller repeats a commit whose answer was lost with the connection.
    """
    row = {"id": worker_id, "name": name, "slots": slots, "lease_s": lease_s, "release": version.newest()}
    insert = upsert(connection.dialect.name, workers).on_conflict_do_nothing()
    connection.execute(insert.values(**row, started_at=now(), lease_until=from_now(lease_s)))


def renew(connection: Connection, worker_id: str, *, slots: int, lease_s: float) -> float | None:
    """Renew the lease and return the database's Unix time.

    None if the row is gone: another worker took the lease back, and the caller must end all its calls.
    """
    renewal = update(workers).where(workers.c.id == worker_id).returning(UNIX_S)
    values = {"slots": slots, "lease_s": lease_s, "lease_until": from_now(lease_s)}
    return connection.execute(renewal.values(**values)).scalar()


def resign(connection: Connection, worker_id: str) -> None:
    """Delete the worker's row and end its leadership. The next dispatcher takes back the jobs that it still holds."""
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    connection.execute(update(leaders).where(leaders.c.worker_id == worker_id).values(lease_until=now()))


def living_workers(connection: Connection) -> dict[str, int]:
    """Return the ids of the registered workers and the slots of each, including leases not yet taken back."""
    return dict(connection.execute(select(workers.c.id, workers.c.slots)).all())


def unserved_workers(connection: Connection, oldest: str) -> list[str]:
    """Return the names of living workers whose release is older than `oldest`."""
    older = or_(workers.c.release.is_(None), workers.c.release < oldest)
    statement = select(workers.c.name).where(workers.c.lease_until > now(), older).order_by(workers.c.name)
    return list(connection.scalars(statement))


def unix_s(connection: Connection) -> float:
    """Return the database's Unix time."""
    return connection.execute(select(UNIX_S)).scalar_one()


def lead(connection: Connection, worker_id: str, *, name: str, lease_s: float) -> bool:
    """Take or keep the leadership `name`; return False while another worker holds it."""
    over = or_(leaders.c.lease_until <= now(), leaders.c.lease_until > from_now(_LONGEST_LEADERSHIP_S))
    free = or_(leaders.c.worker_id == worker_id, over)
    statement = (
        update(leaders).where(leaders.c.name == name, free).values(worker_id=worker_id, lease_until=from_now(lease_s))
    )
    return connection.execute(statement).rowcount == 1
