"""`afterword inspect`: ask the running workers for their tasks and state."""

from typing import Any, Final

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.settings import load, need
from worker.cli.support.times import Duration

# Celery's inspections that only read; without memdump, memsample and objgraph, because they need more packages.
METHODS: Final = (
    "active", "active_queues", "clock", "conf", "ping", "registered", "report", "reserved", "revoked", "scheduled",
    "stats",
)  # fmt: skip


@click.command(
    epilog=examples(
        "afterword inspect active              # the jobs in flight, by worker",
        "afterword inspect ping --timeout 5",
        "afterword inspect stats --worker afterword-17@host --json",
    )
)
@click.argument("method", type=click.Choice(METHODS), metavar="METHOD")
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(low=0.01, high=600),
    default=1.0,
    show_default=True,
    help="Collect answers for this long: 1, 5s.",
)
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="NODE",
    help="Ask only this node, and stop when it has answered; may be repeated.",
)
@json_option
def inspect(method: str, timeout_s: float, workers: tuple[str, ...], as_json: bool) -> None:
    """Ask the running workers for their tasks and state.

    METHOD is one of Celery's inspections: active, active_queues, clock, conf, ping, registered, report, reserved,
    revoked, scheduled, stats. The same as `celery -A worker.app inspect METHOD`, but from any folder, even beside a
    worker.py of your own. Exit code 1: no worker answered.
    """
    answers = _ask(method, timeout_s=timeout_s, workers=list(workers) or None)
    if not answers:
        raise click.ClickException(
            f"no worker answered within {timeout_s:g} s; check with: afterword doctor, or allow more --timeout"
        )
    if as_json:
        output.as_json(answers)
        return
    for node, answer in sorted(answers.items()):
        output.echo(f"{node}\n{_text(answer)}")


def _ask(method: str, *, timeout_s: float, workers: list[str] | None) -> dict[str, Any]:
    """Return each node's answer by its name."""
    from redis import RedisError

    settings = load()
    need(settings, "redis_url")
    from kombu.exceptions import OperationalError

    from worker.app import app

    # Without names the number of workers is unknown, and Celery collects answers until the time is over.
    inspection = app.control.inspect(destination=workers, timeout=timeout_s, limit=len(workers) if workers else None)
    try:
        answers = getattr(inspection, method)()
    except (OperationalError, RedisError, OSError) as error:
        raise click.ClickException(f"Redis cannot be asked: {error}; check AFTERWORD_REDIS_URL") from error
    return answers or {}


def _text(answer: Any) -> str:
    match answer:
        case {"ok": str(text)} if len(answer) == 1:
            lines = text.splitlines()
        case dict():
            lines = output.fields(answer).splitlines()
        case list():
            blocks = [f"{output.fields(item)}\n" if isinstance(item, dict) else str(item) for item in answer]
            lines = "\n".join(blocks or ["none"]).splitlines()
        case _:
            lines = [str(answer)]
    return "\n".join(f"  {line}".rstrip() for line in lines)
