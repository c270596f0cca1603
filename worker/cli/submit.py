"""`afterword submit`: submit a job as a producer does, and wait for its answer if asked."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from worker.cli.support import output
from worker.cli.support.job_client import job_client
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.times import Duration, InstantOption, at
from worker.cli.wait import await_job, print_end


@click.command(
    epilog=examples(
        "afterword submit --model DeepSeek-V3.2 --message hello --wait 1m",
        "afterword submit - --batch invoices --deadline 6h < request.json",
        "afterword submit --model m --message hi --not-before 2030-01-01T03:00:00Z",
    )
)
@click.argument("request", required=False)
@click.option("--model", help="The model, if you do not give REQUEST.")
@click.option("--message", help="The user's message, if you do not give REQUEST.")
@click.option("--stream", is_flag=True, help="Have the endpoint stream the answer.")
@click.option("--id", "job_id", help="The job's id, a UUID of your own.")
@click.option("--tenant", help="The tenant that owns the job.")
@click.option("--idempotency-key", help="The same key with the same request is the same job.")
@click.option("--endpoint", help="The name of a configured endpoint.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 runs first; default 5.")
@click.option(
    "--not-before", type=InstantOption(ahead=True), help="Earliest start: RFC 3339, or 30m for in 30 minutes."
)
@click.option(
    "--deadline", type=InstantOption(ahead=True), help="The job expires then: RFC 3339, or 6h for in six hours."
)
@click.option("--max-attempts", type=click.IntRange(min=1), help="Most requests that the endpoint may have executed.")
@click.option("--batch", help="A name that groups jobs.")
@click.option("--custom-id", help="Your own name for the job.")
@click.option("--wait", "wait_s", type=Duration(), help="Wait this long for the answer and print it: 30, 90s, 5m.")
@json_option
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

    REQUEST is the JSON of the request, or - to read it from standard input. Without REQUEST, give --model and
    --message. With --wait the exit codes are those of `afterword wait`.
    """
    body = _request(request, model=model, message=message)
    body = body | {"stream": True} if stream else body
    given = {("id" if name == "job_id" else name): value for name, value in options.items() if value is not None}
    for name in {"not_before", "deadline"} & set(given):
        given[name] = at(given[name], datetime.now(UTC))
    with job_client("redis_url", *(["database_url"] if wait_s else [])) as client:
        job_id = client.submit(body, **given)
        if wait_s is None:
            output.as_json({"id": job_id}) if as_json else output.echo(job_id)
            return
        print_end(await_job(client, job_id, wait_s), as_json=as_json)


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
