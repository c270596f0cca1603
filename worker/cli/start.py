"""Commands that run something: worker, dev, demo, fake-endpoint."""

import asyncio
import contextlib
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from worker.cli import main, output
from worker.cli.database import database
from worker.cli.follow import follow
from worker.settings import Settings, load
from worker.settings.sources import PREFIX


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(celery_options: tuple[str, ...]) -> None:
    """Run a worker; further options are Celery's, for instance -c 500 or -Q chat.run.

    The same as `celery -A worker.app worker`, in any folder.
    """
    load()  # all errors at once, before Celery starts
    # A folder may hold a worker.py of its own; by now ours is the one imported.
    from worker.app import app

    app.worker_main(["worker", *celery_options])


@main.command("fake-endpoint")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8099, show_default=True)
@click.option("--key", help="The only Bearer key that is let in; without it, any.")
@click.option("--idempotency", type=click.Choice(["ignored", "honoured"]), default="ignored", show_default=True)
def fake_endpoint(host: str, port: int, key: str | None, idempotency: Literal["ignored", "honoured"]) -> None:
    """Serve a chat-completions endpoint that costs nothing and breaks on request (ops/fake_endpoint.md)."""
    from worker.dev.fake_endpoint import serve

    def ready(url: str) -> None:
        output.echo(f"{url}  (export {PREFIX}ENDPOINT_URL={url})")
        sys.stdout.flush()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve(host=host, port=port, key=key, idempotency=idempotency, ready=ready)

    try:
        asyncio.run(run())
    except OSError as error:
        raise click.ClickException(f"port {port} of {host} cannot be opened: {error.strerror}") from error


@main.command()
def dev() -> None:
    """Run everything on this machine: Redis, SQLite, a fake endpoint, a worker. Ctrl-C stops it and leaves nothing.

    What is configured already (AFTERWORD_REDIS_URL, AFTERWORD_DATABASE_URL, AFTERWORD_ENDPOINT_URL) is used instead.
    """
    from worker.dev.stack import Stack, running

    settings = load()
    with contextlib.suppress(KeyboardInterrupt), running(Stack(settings, settings.data_dir)) as stack:
        # Ctrl-C shall not wait for long answers: a job whose call is cut runs again at the next start.
        stack.start_worker(keep=(PREFIX,), drain_s="2")
        exports = stack.exports()
        output.echo("Afterword runs. In a second terminal:\n")
        output.echo("\n".join(f"  export {name}={shlex.quote(text)}" for name, text in exports.items()))
        output.echo(f"\n  {_command()} submit --model fake-echo --message 'hello' --wait 10")
        output.echo(f"\nThe worker's log: {stack.log}\nJobs, as they change (Ctrl-C stops everything):\n")
        with database(replace(settings, database_url=stack.database_url)) as jobs:
            follow(jobs, while_=stack.worker_lives)
        raise click.ClickException(f"the worker ended by itself; it said:\n{stack.log_end()}")


def _command() -> str:
    return "afterword" if Path(sys.argv[0]).name == "afterword" else "python -m worker.cli"


@main.command()
@click.option("--model", default="DeepSeek-V3.2", show_default=True, help="The model for a real endpoint.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds for all jobs.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the database in this folder.")
def demo(model: str, timeout_s: float, keep: Path | None) -> None:
    """Show all of it: run jobs through every door on parts started for the moment, print what stands in SQL.

    With AFTERWORD_ENDPOINT_URL set a few jobs run against that endpoint, for what they cost there.
    Exit code 0: every job ended as it should.
    """
    from worker.cli.demo import Demo
    from worker.cli.demo_jobs import fake_cases, real_cases
    from worker.dev.stack import Stack, running

    endpoints = load().endpoints
    real = "default" in endpoints
    cases = real_cases(model) if real else fake_cases()
    try:
        with running(Stack(Settings(endpoints=endpoints if real else {}), keep)) as stack:
            as_expected = Demo(stack, cases, timeout_s=timeout_s).run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if not as_expected:
        raise SystemExit(1)
