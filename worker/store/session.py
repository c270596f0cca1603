"""What our SQL and our driver rely on, set for each new connection to PostgreSQL whatever its role or database says.

Only parameters that the server reports at the start, so that looking costs nothing, and that PgBouncer follows in
transaction mode: client_encoding, DateStyle, TimeZone, standard_conforming_strings, application_name
(https://www.pgbouncer.org/features.html). Others are set in each transaction, see `store.engine`.
"""

from typing import Any, Final

from sqlalchemy.engine import URL

# Sent when connecting; the URL's own win, but for the encoding: another cannot carry every character of an answer.
DEFAULTS: Final = {
    # Server-side prepared statements are session state, which PgBouncer in transaction mode does not keep.
    "prepare_threshold": None,
    "fallback_application_name": "afterword",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Name, whether a value will do, and the value that does. psycopg reads timestamps in ISO only.
_RELIED_ON: Final = (
    ("DateStyle", lambda value: value.startswith("ISO"), "ISO, MDY"),
    ("TimeZone", lambda value: value in ("UTC", "Etc/UTC"), "UTC"),
    ("standard_conforming_strings", lambda value: value == "on", "on"),
    ("client_encoding", lambda value: value == "UTF8", "UTF8"),
)


def arguments(address: URL, *, reading: bool) -> dict[str, Any]:
    """Return how the driver connects. A writer takes servers that take writes only, unless the URL says otherwise."""
    # After a failover a name may lead to the old primary for a while, which is a read-only replica by then.
    wanted = DEFAULTS | ({} if reading else {"target_session_attrs": "read-write"})
    return {name: value for name, value in wanted.items() if name not in address.query} | {"client_encoding": "UTF8"}


def fault(connection: Any) -> str | None:
    """Return a sentence about a new connection whose database cannot hold every character, else None."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding in (None, "UTF8"):
        return None
    return (
        f"the database {connection.info.dbname!r} has the encoding {encoding}, which cannot hold every character of an "
        "answer; make one with UTF-8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )


def settle(connection: Any) -> None:
    """Set on a new connection what its server, database or role has otherwise."""
    statements = [
        f"SET {name} = '{needed}'"
        for name, will_do, needed in _RELIED_ON
        if (value := connection.info.parameter_status(name)) is not None and not will_do(value)
    ]
    if statements:
        connection.execute("; ".join(statements))
        connection.commit()
