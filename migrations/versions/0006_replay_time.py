"""A replay gives time again to a job that had none left; no instant of a job lies where it cannot be read."""

import re

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
REFUSED = "(attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict'))"
# Of a job that came late, or after its deadline, less than this was left: it gets what a job has that names none.
LEAST_S = 60
TIME_S = 86400
# Not the last second: a session east of Greenwich would show it in year 10000, which psycopg cannot read. Before 1970
# SQLite's views would show negative fractions.
FIRST = {"postgresql": "timestamptz '1970-01-01 00:00:00+00'", "sqlite": "0"}
LAST = {"postgresql": "timestamptz '9999-12-31 00:00:00+00'", "sqlite": "253402214400000000"}


def upgrade() -> None:
    _replace_door(views(op.get_bind().dialect.name))
    _bound_instants()


def downgrade() -> None:
    _replace_door(_door(op.get_bind().dialect.name, bounded=False))


def _replace_door(statements: list[str]) -> None:
    """Replace what an INSERT does; the view stays, and with it who may insert into it."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER afterword_replay_v1")
    does = next(one for one in statements if re.match(r"CREATE (TRIGGER [^$]*\bBEGIN|FUNCTION)", one))
    op.get_bind().exec_driver_sql(does.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))


def _bound_instants() -> None:
    dialect = op.get_bind().dialect.name
    least, greatest = ("least", "greatest") if dialect == "postgresql" else ("min", "max")
    first, last = FIRST[dialect], LAST[dialect]
    for name in ("not_before", "run_at", "deadline"):
        op.get_bind().exec_driver_sql(
            f"UPDATE afterword_jobs SET {name} = {least}({greatest}({name}, {first}), {last}) "
            f"WHERE {name} < {first} OR {name} > {last}"
        )


def views(dialect: str) -> list[str]:
    """Return the statements that create the door, as `api_contracts/sql` shows it."""
    return _door(dialect, bounded=True)


def _door(dialect: str, *, bounded: bool) -> list[str]:
    """Return the door's view and what lets rows into it; not `bounded`: as it was before."""
    view = f"""CREATE VIEW replay_v1 (id) AS
SELECT id FROM afterword_jobs
WHERE status IN ('cancelled', 'expired', 'failed') AND NOT coalesce({REFUSED}, false)"""
    if dialect == "sqlite":
        time_s = _time_s("(deadline - created_at) / 1000000.0", bounded=bounded)
        later = f"{SQLITE_NOW} + CAST({time_s} * 1000000 AS INTEGER)"
        deadline = f"min({later}, {LAST[dialect]})" if bounded else later
        body = _replay("lower(NEW.id)", now=SQLITE_NOW, time_s=time_s, deadline=deadline)
        return [view, f"CREATE TRIGGER afterword_replay_v1 INSTEAD OF INSERT ON replay_v1\nBEGIN\n{body}\nEND"]
    time_s = _time_s("EXTRACT(EPOCH FROM deadline - created_at)::float8", bounded=bounded)
    later = f"clock_timestamp() + make_interval(secs => {time_s})"
    deadline = f"least({later}, {LAST[dialect]})" if bounded else later
    body = _replay("NEW.id", now="clock_timestamp()", time_s=time_s, deadline=deadline)
    if bounded:
        # Held from the first look on: a cancellation between that and the mark's end would lose its mark unheard.
        body = f"    PERFORM 1 FROM afterword_jobs WHERE id = {_owner('NEW.id')} FOR UPDATE;\n{body}"
    return [
        view,
        "CREATE FUNCTION afterword_replay_v1() RETURNS trigger LANGUAGE plpgsql\n"
        f"SECURITY DEFINER SET search_path FROM CURRENT AS $$\nBEGIN\n{body}\n    RETURN NEW;\nEND $$",
        "CREATE TRIGGER afterword_replay_v1 INSTEAD OF INSERT ON replay_v1\n"
        "FOR EACH ROW EXECUTE FUNCTION afterword_replay_v1()",
        # Whoever may execute it can hang it on a table of their own, and needs no right on the view.
        "REVOKE EXECUTE ON FUNCTION afterword_replay_v1() FROM PUBLIC",
    ]


def _time_s(first: str, *, bounded: bool) -> str:
    """Return the seconds a replayed job has; `first`: those from its acceptance to its deadline."""
    own = f"coalesce(replay_time_s, {first})"
    return f"(CASE WHEN {own} < {LEAST_S} THEN {TIME_S}.0 ELSE {own} END)" if bounded else own


def _owner(job: str) -> str:
    return f"coalesce((SELECT job_id FROM afterword_aliases WHERE id = {job}), {job})"


def _replay(job: str, *, now: str, time_s: str, deadline: str) -> str:
    owner = _owner(job)
    return f"""    UPDATE afterword_jobs
    SET status = 'queued', finished_at = NULL, cancel_requested_at = NULL, waiting_for = NULL, worker_id = NULL,
        attempts_used = 0, generation = generation + 1, run_at = {now},
        replay_time_s = {time_s},
        deadline = {deadline},
        error_code = NULL, error_message = NULL, error = NULL
    WHERE id = {owner} AND status IN ('cancelled', 'expired', 'failed') AND NOT coalesce({REFUSED}, false);
    DELETE FROM afterword_cancellations WHERE id IN ({job}, {owner});
    DELETE FROM afterword_finished
    WHERE job_id = {owner} AND EXISTS (SELECT 1 FROM afterword_jobs WHERE id = {owner} AND status = 'queued');"""
