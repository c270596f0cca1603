"""Python imports this module at its start if the folder is on PYTHONPATH; the process then records its SQL.

Each statement and each end of a transaction is a line `[thread, number, kind, text, parameter sets]` in the file
COUNTED: the thread's name and number; `kind` is `statement`, `commit` or `rollback`. Nothing else changes.
"""

import json
import os
import threading
from typing import Any

from sqlalchemy import Connection, Engine, event

_file = os.open(os.environ["COUNTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _write(kind: str, text: str = "", sets: int = 1) -> None:
    line = json.dumps([threading.current_thread().name, threading.get_ident(), kind, text, sets])
    os.write(_file, f"{line}\n".encode())


@event.listens_for(Engine, "before_cursor_execute")
def _note_statement(_: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
    _write("statement", statement, len(parameters) if many else 1)


@event.listens_for(Engine, "commit")
def _note_commit(_: Connection) -> None:
    _write("commit")


@event.listens_for(Engine, "rollback")
def _note_rollback(_: Connection) -> None:
    _write("rollback")
