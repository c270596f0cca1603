"""`afterword verify`: check every row of the database against every rule."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from worker.cli.support import output
from worker.cli.support.database import reader
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.settings import load
from worker.cli.support.times import Duration

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.verify.verify import VerifyReport, Violation


@click.command(
    epilog=examples(
        "afterword verify",
        "afterword verify --grace 2m --json",
    )
)
@click.option(
    "--grace",
    "grace_s",
    type=Duration(low=0),
    help="Give workers this long to repair a row: 60, 90s, 2m; default: a lease and five ticks.",
)
@json_option
def verify(grace_s: float | None, as_json: bool) -> None:
    """Check every row of the database against every rule.

    The rules say that no job is lost, stuck, billed twice without a record, counted wrongly, or ended without its
    webhooks. The command only reads, and workers may run. A row that breaks a rule is checked again after --grace,
    because a worker may repair it until then. Exit code 1: a rule is broken; the output lists the first 20 rows of
    each.
    """
    settings = load()
    report = _verify(settings, grace_s=settings.lease_s + 5 * settings.tick_s if grace_s is None else grace_s)
    if as_json:
        checks = [asdict(finding) for finding in report.findings]
        output.as_json({"ok": not report.broken, "jobs": report.jobs, "checks": checks})
    else:
        output.echo("\n".join(_lines(report)))
    if report.broken:
        raise SystemExit(ExitCode.FAILED)


def _verify(settings: "Settings", *, grace_s: float) -> "VerifyReport":
    from worker.verify.verify import verify

    with reader(settings) as engine:
        return verify(engine, grace_s=grace_s)


def _lines(report: "VerifyReport") -> list[str]:
    if not report.broken:
        return [f"{report.jobs} jobs; all {len(report.findings)} rules hold"]
    lines = [f"{report.jobs} jobs; {len(report.broken)} of {len(report.findings)} rules are broken"]
    for violation in report.broken:
        lines += _rows_of(violation)
    return lines


def _rows_of(violation: "Violation") -> list[str]:
    unlisted = violation.broken - len(violation.first)
    more = [f"  … and {unlisted} more"] if unlisted > 0 else []
    rows = (f"  {key}  {fault}" for key, fault in violation.first)
    return [f"\n{violation.name}: {violation.broken}. {violation.rule}", *rows, *more]
