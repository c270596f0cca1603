"""Set the session parameters that our SQL and driver need, on each new connection to PostgreSQL.

A role or a database may have other defaults. The server reports these parameters at connect, so reading them costs no
query, and PgBouncer keeps them in transaction mode: client_encoding, DateStyle, TimeZone, standard_conforming_strings,
application_name (https://www.pgbouncer.org/features.html). Other parameters are set in each transaction: store.engine.
"""

from typing import Any, Final

from sqlalchemy.engine import URL

# Sent at connect. Options in the URL win, except the encoding: only UTF-8 carries every character of an answer.
DEFAULTS: Final = {
    # PgBouncer in transaction mode does not keep session state, and server-side prepared statements are such state.
    "prepare_threshold": None,
    "fallback_application_name": "afterword",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Name, a test of the present value, and the value to set. psycopg parses timestamps only in ISO format.
_REQUIRED: Final = (
    ("DateStyle", lambda value: value.startswith("ISO"), "ISO, MDY"),
    ("TimeZone", lambda value: value in ("UTC", "Etc/UTC"), "UTC"),
    ("standard_conforming_strings", lambda value: value == "on", "on"),
    ("client_encoding", lambda value: value == "UTF8", "UTF8"),
)


def arguments(address: URL, *, reading: bool) -> dict[str, Any]:
    """Return the driver's connect arguments. A writer needs a writable server, unless the URL says otherwise."""
    # After a failover a host name may lead to the old primary for a while, now a read-only replica.
    wanted = DEFAULTS | ({} if reading else {"target_session_attrs": "read-write"})
    return {name: value for name, value in wanted.items() if name not in address.query} | {"client_encoding": "UTF8"}


def fault(connection: Any) -> str | None:
    """Return a sentence if the database of a new connection has another encoding than UTF-8, else None."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding in (None, "UTF8"):
        return None
    return (
        f"the database {connection.info.dbname!r} has the encoding {encoding}, which cannot hold every character of an "
        "answer; make one with UTF-8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )


def set_parameters(connection: Any) -> None:
    """Set the required parameters that the server, database or role sets to other values."""
    statements = [
        f"SET {name} = '{needed}'"
        for name, is_good, needed in _REQUIRED
        if (value := connection.info.parameter_status(name)) is not None and not is_good(value)
    ]
    if statements:
        connection.execute("; ".join(statements))
        connection.commit()
