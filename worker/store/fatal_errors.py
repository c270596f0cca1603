"""A start that cannot succeed: an address, a name, a password or a right is wrong, and waiting mends none of them."""

import re
import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError

from worker.store.engine import SQLITE_AWAY, sqlite_code, sqlstate

_SQLITE: Final = SQLITE_AWAY - {sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_SAID: Final = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|not permitted to log in|permission denied for database"
    r"|(database|role) \".*\" does not exist|no such (database|user)|not currently accepting connections"
    r"|Name or service not known|nodename nor servname|unrecognized configuration parameter|unsupported startup"
    r"|certificate verify failed|certificate file|private key file|does not match host name|not support SSL"
    r"|response to SSL negotiation|invalid \S+ value|invalid integer value"
)


def is_hopeless(error: BaseException) -> bool:
    """Say whether a connection at a start fails for a reason that waiting does not mend: a name, a password, a right.

    Of several hosts each must fail so. In English only: libpq tells no SQLSTATE of a failed connection. A server that
    speaks another language is waited for, with its words in the log.
    """
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in _SQLITE
    if state := sqlstate(error):
        return state.startswith(("28", "3D000", "42501"))
    each = str(error.orig).partition("All failures were:")[2].split("\n- host:")[1:] or [str(error.orig)]
    return all(_SAID.search(one) for one in each)
