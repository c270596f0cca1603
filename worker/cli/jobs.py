"""Commands on jobs: submit, status, wait, jobs (list). They use the same package as any producer."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from afterword import Afterword, Job, NotConfigured, SubmitError, WaitTimeout
from worker.cli import hold_words, main, output
from worker.cli.database import migrated
from worker.settings import load, need

ENDED_OTHERWISE = 3
NOT_YET = 4
STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
COLUMNS = [
    "id", "status", "model", "attempts", "waiting_for", "finish_reason", "prompt_tokens", "completion_tokens",
    "error_code",
]  # fmt: skip
# Between two looks at what a job waits for.
LOOK_S = 5.0
ATTEMPT_COLUMNS = ["attempt", "sent_at", "finished_at", "outcome", "http_status", "error_code", "billed"]
script = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


@contextmanager
def client_of(*needed: str) -> Iterator[Afterword]:
    settings = load()
    need(settings, *needed)
    if "database_url" in needed:
        # The package tells a producer what its driver says; whoever types a command is told what to do.
        with migrated(settings):
            pass
    with Afterword(settings.redis_url, settings.database_url, schema=settings.database_schema) as client:
        try:
            yield client
        except (NotConfigured, SubmitError, ValueError, TypeError) as error:
            raise click.ClickException(str(error)) from error


@main.command()
@click.argument("request", required=False)
@click.option("--model", help="The model, where the request is not given as JSON.")
@click.option("--message", help="The user's message, where the request is not given as JSON.")
@click.option("--stream", is_flag=True, help="Stream the answer.")
@click.option("--id", "job_id", help="The job's id, a UUID.")
@click.option("--tenant", help="Who the job belongs to.")
@click.option("--idempotency-key", help="The same key and request is the same job.")
@click.option("--endpoint", help="A configured endpoint's name.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 runs first.")
@click.option("--not-before", help="Earliest start, RFC 3339 with an offset.")
@click.option("--deadline", help="When the job expires, RFC 3339 with an offset.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="Requests the endpoint may have executed.")
@click.option("--batch", help="Groups jobs.")
@click.option("--custom-id", help="Your own name for the job.")
@click.option("--wait", "wait_s", type=float, help="Wait up to so many seconds and print the answer.")
@script
def submit(
    request: str | None,
    model: str | None,
    message: str | None,
    stream: bool,
    wait_s: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit a chat completion and print the job's id.

    REQUEST is the request's JSON, or - to read it from standard input; or give --model and --message.
    """
    body = _request(request, model=model, message=message)
    body = body | {"stream": True} if stream else body
    given = {("id" if name == "job_id" else name): value for name, value in options.items() if value is not None}
    for name in {"not_before", "deadline"} & set(given):
        given[name] = _instant(name, given[name])
    with client_of("redis_url", *(["database_url"] if wait_s else [])) as client:
        new = client.submit(body, **given)
        if wait_s is None:
            output.as_json({"id": new}) if as_json else output.echo(new)
            return
        _show_end(_wait(client, new, wait_s), as_json=as_json)


def _request(text: str | None, *, model: str | None, message: str | None) -> dict[str, Any]:
    if text is None:
        if not model or message is None:
            raise click.UsageError("give the request as JSON, or --model and --message")
        return {"model": model, "messages": [{"role": "user", "content": message}]}
    if model or message:
        raise click.UsageError("give the request as JSON, or --model and --message, not both")
    try:
        value = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise click.UsageError(f"the request is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError("the request is not a JSON object")
    return value


def _instant(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"--{name.replace('_', '-')} is {text!r}; write 2026-11-24T03:00:00+00:00") from error


@main.command()
@click.argument("id")
@script
def status(id: str, as_json: bool) -> None:
    """Print what is known of a job, and each of its attempts."""
    with client_of("database_url") as client:
        job = client.get(id)
    if job is None:
        raise click.ClickException(f"no job {id} is known; a worker must have accepted it before it can be seen")
    with migrated(load()) as listing:
        attempts, used = listing.attempts_of(job.id), listing.attempts_used(job.id)
    known = _plain(job) | {"attempts_used": used}
    if as_json:
        output.as_json(known | {"attempt_rows": attempts})
        return
    output.echo(output.fields(known | {"response": None, "attempts": hold_words.attempts(known)}))
    if (reason := hold_words.job(known)) is not None:
        output.echo(f"\nthe job {reason}")
    if attempts:
        output.echo("\n" + output.rows(ATTEMPT_COLUMNS, attempts))


@main.command()
@click.argument("id")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds.")
@script
def wait(id: str, timeout_s: float, as_json: bool) -> None:
    """Wait for a job's end and print its answer.

    Exit code 0: completed; 3: failed, cancelled or expired; 4: not ended in time.
    """
    with client_of("database_url") as client:
        _show_end(_wait(client, id, timeout_s), as_json=as_json)


def _wait(client: Afterword, id: str, timeout_s: float) -> Job:
    """Wait, and say on standard error what the job waits for as soon as that lasts."""
    until, shown = time.monotonic() + timeout_s, None
    while True:
        left_s = until - time.monotonic()
        try:
            return client.wait(id, max(0.0, min(left_s, LOOK_S)))
        except WaitTimeout as error:
            if left_s <= LOOK_S:
                output.echo(str(WaitTimeout.of(id, error.job, timeout_s)), err=True)
                raise SystemExit(NOT_YET) from error
            waits = None if error.job is None else hold_words.job(_plain(error.job) | {"waiting_until": None})
            if waits not in (None, shown):
                output.echo(f"job {id} {waits}", err=True)
                shown = waits


def _show_end(job: Job, *, as_json: bool) -> None:
    if as_json:
        output.as_json(_plain(job))
    elif job.status == "completed":
        text = job.text if job.text is not None else json.dumps(job.response, ensure_ascii=False)
        # A terminal gets no escapes of a model's; a file or a pipe gets the answer as it is.
        output.echo(text) if sys.stdout.isatty() else click.echo(text)
    else:
        output.echo(f"job {job.id} {job.status}: {job.error_code}: {job.error_message}", err=True)
    if job.status != "completed":
        raise SystemExit(ENDED_OTHERWISE)


def _plain(job: Job) -> dict[str, Any]:
    return {name: output.plain(value) if isinstance(value, datetime) else value for name, value in asdict(job).items()}


@main.group(invoke_without_command=True)
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs that stand there.")
@click.option("--batch", help="Only jobs of this batch.")
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@script
@click.pass_context
def jobs(
    context: click.Context, status: str | None, batch: str | None, tenant: str | None, limit: int, as_json: bool
) -> None:
    """List the newest jobs, or change jobs that wait (update)."""
    if context.invoked_subcommand is not None:
        return
    with migrated(load()) as listing:
        found = listing.newest(limit=limit, status=status, batch=batch, tenant=tenant)
    if as_json:
        output.as_json(found)
    else:
        shown = [job | {"attempts": hold_words.attempts(job)} for job in found]
        output.echo(output.rows(COLUMNS, shown) if found else "no jobs")
