"""`afterword doctor`: check every part of an installation."""

from dataclasses import asdict

import click

from worker.cli.support import output
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.settings import load


@click.command(
    epilog=examples(
        "afterword doctor",
        "afterword doctor --worker             # health probe of a container",
        "afterword doctor --json",
    )
)
@click.option("--worker", "worker_only", is_flag=True, help="Check only that a worker of this host renews its lease.")
@json_option
def doctor(worker_only: bool, as_json: bool) -> None:
    """Check database, Redis, endpoints, workers and webhooks.

    It changes nothing and sends no request that costs money. Exit code 1: at least one part has failed.
    """
    from worker.cli.doctor_checks import examine, own_worker

    settings = load()
    findings = [own_worker(settings)] if worker_only else list(examine(settings))
    if as_json:
        output.as_json([asdict(finding) for finding in findings])
    else:
        output.echo("\n".join(f"{finding.state:7} {finding.part:9} {finding.text}" for finding in findings))
    if any(finding.state == "failed" for finding in findings):
        raise SystemExit(ExitCode.FAILED)
