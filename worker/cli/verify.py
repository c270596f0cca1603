"""The command `afterword verify`: whether everything is true that must be."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from worker.cli import main, output
from worker.cli.database import reader
from worker.settings import Settings, load

if TYPE_CHECKING:
    from worker.verify.verify import VerifyReport, Violation


@main.command()
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), help="Seconds in which workers may mend what is due.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
def verify(grace_s: float | None, as_json: bool) -> None:
    """Check the whole database: that no job is lost, stuck, bought twice by mistake, counted wrongly or left untold.

    It only reads, also beside running workers. What a worker is about to mend is looked at again after --grace, by
    default a lease and a few ticks. Exit code 1 when a rule is broken; the first 20 offenders of each are named.
    """
    settings = load()
    report = _ask(settings, grace_s=settings.lease_s + 5 * settings.tick_s if grace_s is None else grace_s)
    if as_json:
        output.as_json(
            {"ok": not report.broken, "jobs": report.jobs, "checks": [asdict(one) for one in report.findings]}
        )
    else:
        output.echo("\n".join(_lines(report)))
    if report.broken:
        raise SystemExit(1)


def _ask(settings: Settings, *, grace_s: float) -> "VerifyReport":
    from worker.verify.verify import verify

    with reader(settings) as engine:
        return verify(engine, grace_s=grace_s)


def _lines(report: "VerifyReport") -> list[str]:
    if not report.broken:
        return [f"{report.jobs} jobs; all {len(report.findings)} rules hold"]
    lines = [f"{report.jobs} jobs; {len(report.broken)} of {len(report.findings)} rules are broken"]
    for one in report.broken:
        lines += _offenders(one)
    return lines


def _offenders(one: "Violation") -> list[str]:
    more = [f"  … and {one.broken - len(one.first)} more"] if one.broken > len(one.first) else []
    return [f"\n{one.name}: {one.broken}. {one.rule}", *(f"  {key}  {wrong}" for key, wrong in one.first), *more]
