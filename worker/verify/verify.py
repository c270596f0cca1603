"""VERIFY: checks every rule of `verify.rules` on every row, a bounded number of rows at a time. Only reads."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select, true

from worker.store.tables import jobs
from worker.verify.rule import Check, Offender, TableRules
from worker.verify.rules import RULES, SETTLING

SHOWN = 20
SPAN = 1000
# Offenders of a settling rule that are checked again; more than these are an error in any case.
SUSPECTS = 1000


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule's result: `broken` counts its offenders, `first` has some of them.

    `name` is the rule's function, `rule` its sentence. `broken` is 0 if every row keeps the rule.
    """

    name: str
    rule: str
    broken: int
    first: tuple[Offender, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The number of jobs, and a finding for each rule in the order of `verify.rules`."""

    jobs: int
    findings: tuple[Violation, ...]

    @property
    def broken(self) -> tuple[Violation, ...]:
        return tuple(finding for finding in self.findings if finding.broken)


@dataclass(slots=True)
class _Tally:
    broken: int = 0
    kept: list[Offender] = field(default_factory=list)

    def add(self, offender: Offender, *, most: int) -> None:
        self.broken += 1
        if len(self.kept) < most:
            self.kept.append(offender)


def verify(
    engine: Engine, *, grace_s: float, span: int = SPAN, pause: Callable[[float], object] = time.sleep
) -> VerifyReport:
    """Check the whole database, with or without running workers.

    Workers repair some faults by themselves (a lease that has just ended, a deadline that has just passed). These are
    checked again after `grace_s` and count only if they are still there; `grace_s` must be longer than a lease.
    `span`: rows in one transaction. Each transaction is short and reads a single snapshot.
    """
    tallies: dict[Check, _Tally] = {}
    suspects: list[tuple[TableRules, Check]] = []
    for table in RULES:
        _check_table(engine, table, tallies, span=span)
        suspects += [(table, check) for check in table.checks if check in SETTLING and tallies[check].broken]
    if suspects:
        pause(grace_s)
    for table, check in suspects:
        tallies[check] = _check_again(engine, table, check, tallies[check])
    with _snapshot(engine) as connection:
        number = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    return VerifyReport(number, tuple(_finding(check, tally) for check, tally in tallies.items()))


def _check_table(engine: Engine, table: TableRules, tallies: dict[Check, _Tally], *, span: int) -> None:
    """Check the rules of a table on one span of keys after the other."""
    tallies |= {check: _Tally() for check in table.checks}
    beyond: ColumnElement[bool] = true()
    while True:
        with _snapshot(engine) as connection:
            ends = select(table.key).where(beyond).order_by(table.key).offset(span - 1).limit(1)
            last = connection.execute(ends).scalar()
            within = beyond if last is None else and_(beyond, table.key <= last)
            for check in table.checks:
                for offender in check(connection, within):
                    tallies[check].add(offender, most=SUSPECTS if check in SETTLING else SHOWN)
        if last is None:
            return
        beyond = table.key > last


def _check_again(engine: Engine, table: TableRules, check: Check, tally: _Tally) -> _Tally:
    """Return the offenders that still break the rule; those beyond SUSPECTS count without a second check."""
    again = _Tally(broken=tally.broken - len(tally.kept))
    before = set(tally.kept)
    keys = [key for key, _ in tally.kept]
    with _snapshot(engine) as connection:
        for offender in check(connection, table.key.in_(keys)):
            # The same words too: a job that has lost another attempt since then is a new offender.
            if offender in before:
                again.add(offender, most=SHOWN)
    return again


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a transaction with a single snapshot for all its statements."""
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        yield connection


def _finding(check: Check, tally: _Tally) -> Violation:
    rule = (check.__doc__ or "").partition("\n")[0]
    return Violation(check.__name__, rule, tally.broken, tuple(tally.kept[:SHOWN]))
