"""`afterword demo`: run jobs in every way on temporary parts."""

from pathlib import Path

import click

from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.settings import load
from worker.cli.support.times import Duration


@click.command(
    epilog=examples(
        "afterword demo",
        "afterword demo --keep ./demo          # look at the database afterwards",
        "afterword demo --timeout 5m",
    )
)
@click.option("--model", default="DeepSeek-V3.2", show_default=True, help="The model for a real endpoint.")
@click.option(
    "--timeout", "timeout_s", type=Duration(), default=60.0, show_default=True, help="For all jobs: 60, 90s, 5m."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the database in this folder.")
def demo(model: str, timeout_s: float, keep: Path | None) -> None:
    """Run jobs in every possible way and print their rows.

    The demo starts its own Redis, SQLite database, fake endpoint, worker and webhook receiver, and stops them at the
    end. If AFTERWORD_ENDPOINT_URL is set, it sends a few jobs to that endpoint instead, and you pay for them. Exit code
    1: a job did not end as it should.
    """
    from worker.cli.demo_jobs import fake_cases, real_cases
    from worker.cli.demo_run import Demo
    from worker.dev.stack import Stack, running
    from worker.settings import Settings

    endpoints = load().endpoints
    real = "default" in endpoints
    cases = real_cases(model) if real else fake_cases()
    try:
        with running(Stack(Settings(endpoints=endpoints if real else {}), keep)) as stack:
            as_expected = Demo(stack, cases, timeout_s=timeout_s).run()
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    if not as_expected:
        raise SystemExit(ExitCode.FAILED)
