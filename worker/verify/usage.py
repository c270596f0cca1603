"""The rule of usage: reads each raw usage object again and compares it with the attempt's token columns."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from worker.chat.answer import has_output
from worker.chat.usage import TOKENS, Usage, normalise
from worker.store.tables import answers, attempts, jobs


def usage_is_what_was_reported(connection: Connection, within: ColumnElement[bool]) -> Iterable[tuple[str, str]]:
    """The token columns, the cost and the flags of an attempt equal those of its raw usage object."""
    of_attempt = (answers.c.job_id == attempts.c.job_id) & (answers.c.attempt == attempts.c.attempt)
    statement: Select[Any] = (
        select(
            attempts.c.job_id,
            attempts.c.attempt,
            attempts.c.usage_source,
            attempts.c.usage_flags,
            attempts.c.reported_cost,
            *(attempts.c[name] for name in TOKENS),
            answers.c.usage_raw,
            jobs.c.token_limit,
        )
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .outerjoin(answers, of_attempt)
        .where(within, attempts.c.outcome.is_not(None))
    )
    for row in connection.execute(statement):
        usage = _read_again(connection, row)
        if wrong := list(_differences(row, usage)):
            flags = f"; its flags are {', '.join(usage.flags)}" if usage.flags else ""
            yield str(row.job_id), f"attempt {row.attempt}: {', '.join(wrong)}{flags}"


def _read_again(connection: Connection, row: Row[Any]) -> Usage:
    raw = None if row.usage_raw is None else bytes(row.usage_raw)

    def read(*, has_text: bool) -> Usage:
        return normalise(raw, source=row.usage_source, has_text=has_text, limit=row.token_limit)

    usage = read(has_text=False)
    # Read the answer, maybe megabytes, only if all reported values are 0: only then its text changes the result.
    return read(has_text=_has_text(connection, row)) if "all_zero" in usage.flags else usage


def _has_text(connection: Connection, row: Row[Any]) -> bool:
    of_attempt = (answers.c.job_id == row.job_id, answers.c.attempt == row.attempt)
    response = connection.execute(select(answers.c.response).where(*of_attempt)).scalar()
    return has_output(None if response is None else json.loads(response))


def _differences(row: Row[Any], usage: Usage) -> Iterator[str]:
    for name in (*TOKENS, "reported_cost"):
        stored, reported = row._mapping[name], usage.reported_cost if name == "reported_cost" else usage.tokens[name]
        if stored != reported:
            yield f"{name} is {stored}, the object says {reported}"
    # An attempt of a lost worker was not recorded, so it has no flags.
    if row.usage_source is not None:
        stored_flags = json.loads(row.usage_flags or "[]")
        # More stored flags are fine: some come from the answer, not from the usage object.
        yield from (f"the flag {flag} is missing" for flag in usage.flags if flag not in stored_flags)
