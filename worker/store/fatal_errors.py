"""Recognise connection errors that waiting does not repair: a wrong address, name, password or right."""

import re
import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError

from worker.store.engine import SQLITE_AWAY, sqlite_code, sqlstate

_FATAL_SQLITE_CODES: Final = SQLITE_AWAY - {sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_FATAL_MESSAGE: Final = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|not permitted to log in|permission denied for database"
    r"|(database|role) \".*\" does not exist|no such (database|user)|not currently accepting connections"
    r"|Name or service not known|nodename nor servname|unrecognized configuration parameter|unsupported startup"
    r"|certificate verify failed|certificate file|private key file|does not match host name|not support SSL"
    r"|response to SSL negotiation|invalid \S+ value|invalid integer value"
)


def is_hopeless(error: BaseException) -> bool:
    """Return whether a worker should give up its start after this connection error, instead of waiting.

    With several hosts in the URL, each must fail in such a way. libpq gives no SQLSTATE for a failed connection, so
    English messages are matched; for a server with messages in another language the worker waits and logs them.
    """
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in _FATAL_SQLITE_CODES
    if state := sqlstate(error):
        return state.startswith(("28", "3D000", "42501"))
    messages = str(error.orig).partition("All failures were:")[2].split("\n- host:")[1:] or [str(error.orig)]
    return all(_FATAL_MESSAGE.search(message) for message in messages)
