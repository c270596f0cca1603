"""VERIFY: asks every rule of `verify.rules` about every row, in spans of a bounded size; only reads."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select, true

from worker.store.tables import jobs
from worker.verify.rule import Check, Offender, TableRules
from worker.verify.rules import SETTLING, WALKS

SHOWN = 20
SPAN = 1000
# Offenders of a settling rule that are looked at again; beyond these something is wrong anyway.
SUSPECTS = 1000


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule and its offenders: how many, and the first of them with what is wrong."""

    name: str
    rule: str
    broken: int
    first: tuple[Offender, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found, a finding a rule, in the order of the walks; and how many jobs there are."""

    jobs: int
    findings: tuple[Violation, ...]

    @property
    def broken(self) -> tuple[Violation, ...]:
        return tuple(one for one in self.findings if one.broken)


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
    """Check the whole database, while workers go on or when none does.

    What workers are about to mend (a lease that has just ended, a deadline that has just passed) is looked at once
    more after `grace_s`, which must be longer than a lease, and counts only if it is still so. `span`: rows a
    transaction; each sees one moment, and none is held for long.
    """
    tallies: dict[Check, _Tally] = {}
    suspects: list[tuple[TableRules, Check]] = []
    for walk in WALKS:
        _walk(engine, walk, tallies, span=span)
        suspects += [(walk, check) for check in walk.checks if check in SETTLING and tallies[check].broken]
    if suspects:
        pause(grace_s)
    for walk, check in suspects:
        tallies[check] = _still(engine, walk, check, tallies[check])
    with _moment(engine) as connection:
        number = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    return VerifyReport(number, tuple(_finding(check, tally) for check, tally in tallies.items()))


def _walk(engine: Engine, walk: TableRules, tallies: dict[Check, _Tally], *, span: int) -> None:
    """Ask the rules of a walk about one span of keys after the other."""
    tallies |= {check: _Tally() for check in walk.checks}
    beyond: ColumnElement[bool] = true()
    while True:
        with _moment(engine) as connection:
            ends = select(walk.key).where(beyond).order_by(walk.key).offset(span - 1).limit(1)
            last = connection.execute(ends).scalar()
            within = beyond if last is None else and_(beyond, walk.key <= last)
            for check in walk.checks:
                for offender in check(connection, within):
                    tallies[check].add(offender, most=SUSPECTS if check in SETTLING else SHOWN)
        if last is None:
            return
        beyond = walk.key > last


def _still(engine: Engine, walk: TableRules, check: Check, tally: _Tally) -> _Tally:
    """Return which offenders are ones still; those beyond SUSPECTS count unseen."""
    again = _Tally(broken=tally.broken - len(tally.kept))
    before = set(tally.kept)
    keys = [key for key, _ in tally.kept]
    with _moment(engine) as connection:
        for offender in check(connection, walk.key.in_(keys)):
            # The same words: a job that another attempt has lost meanwhile is not the one we waited for.
            if offender in before:
                again.add(offender, most=SHOWN)
    return again


@contextmanager
def _moment(engine: Engine) -> Iterator[Connection]:
    """A transaction whose statements see the same moment."""
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        yield connection


def _finding(check: Check, tally: _Tally) -> Violation:
    rule = (check.__doc__ or "").partition("\n")[0]
    return Violation(check.__name__, rule, tally.broken, tuple(tally.kept[:SHOWN]))
