"""The run of `afterword demo`: submit jobs in every way, wait, receive webhooks, compare with the cases."""

import json
import sqlite3
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from urllib.parse import unquote

import click
from celery import Celery

from afterword import Afterword
from worker.cli.demo_jobs import Case
from worker.cli.support import output
from worker.cli.support.database import writer
from worker.cli.webhooks.receiver_lookup import ReceiverCommand
from worker.cli.webhooks.registration import add_receiver, hmac_text
from worker.dev.receiver import WebhookReceiver
from worker.dev.stack import Stack
from worker.settings import read
from worker.webhooks.core.registration import Registration

BATCH = "demo"
LOOK_S = 0.05
FINAL = {"completed", "failed", "cancelled", "expired"}
COLUMNS = ["custom_id", "status", "attempts", "finish_reason", "prompt_tokens", "completion_tokens", "answer"]
RESULTS = """\
SELECT custom_id, status, attempts, finish_reason, prompt_tokens, completion_tokens,
       coalesce(content, error_code, tool_calls) AS answer
FROM jobs_v1 WHERE batch = 'demo' ORDER BY created_at, custom_id"""
USAGE = """\
SELECT model, count(*) AS requests, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion
FROM usage_v1 WHERE batch = 'demo' GROUP BY model ORDER BY model"""

DELIVERIES = "SELECT status FROM webhook_deliveries_v1"
# Characters of a webhook's body.
SHOWN = 700

# The id of a duplicate leads to the earlier job with its idempotency key.
STATUSES = "SELECT ids.id, jobs.status FROM job_ids_v1 AS ids JOIN jobs_v1 AS jobs ON jobs.id = ids.job_id"


class Demo:
    """A run on a stack that has started."""

    def __init__(self, stack: Stack, cases: Sequence[Case], *, timeout_s: float) -> None:
        self.stack, self.cases, self.timeout_s = stack, cases, timeout_s
        self.path = unquote(stack.database_url.removeprefix("sqlite:///"))
        self.ids: dict[str, str] = {}  # by custom_id, as its submission returned it
        self.receiver = WebhookReceiver()
        self._shown = ""

    def run(self) -> bool:
        """Return whether every job ended as its case says."""
        began = time.monotonic()
        endpoint = self.stack.given.endpoint
        output.echo(f"Redis, SQLite, {endpoint.url if endpoint else 'a fake endpoint'}: started. Starting a worker ...")
        self.stack.start_worker(keep=("AFTERWORD_ENDPOINT_", "AFTERWORD_CONFIG"), log_format="console", drain_s="2")
        with self.receiver:
            self._register()
            self._submit()
            ended = self._watch() and self._await_webhooks()
        self._print()
        faults = [fault for case in self.cases for fault in self._faults(case)] + self._webhook_faults()
        for fault in faults:
            output.echo(f"NOT AS EXPECTED  {fault}", err=True)
        if not ended or faults:
            output.echo(f"\nThe end of the worker's log:\n{self.stack.log_end()}", err=True)
        good = "all as expected" if ended and not faults else "NOT all as expected"
        output.echo(f"\n{len(self.ids)} submissions, {good}, in {time.monotonic() - began:.1f} s.")
        return ended and not faults

    def _register(self) -> None:
        """Register a local receiver for the events of every job."""
        settings = read(self.stack.exports())
        with writer(settings) as engine:
            chosen = Registration("demo", is_default=True)
            _, keys = add_receiver(ReceiverCommand(engine, settings), chosen, self.receiver.url, {})
        self.receiver.secrets = (hmac_text(keys),)

    def _submit(self) -> None:
        with Celery(broker=self.stack.redis_url) as bare, Afterword(self.stack.redis_url) as client:
            for case in self.cases:
                self._await_row(case.after)
                for name in _names(case):
                    self.ids[name] = self._send(bare, client, case, name)
            bare.close()
        output.echo(f"Submitted {len(self.ids)} jobs by Celery, by Afterword.submit and enqueue, and by SQL.")

    def _await_row(self, name: str | None) -> None:
        give_up = time.monotonic() + self.timeout_s
        while name is not None and self._row(self.ids[name]) is None and time.monotonic() < give_up:
            time.sleep(LOOK_S)

    def _send(self, bare: Celery, client: Afterword, case: Case, name: str) -> str:
        options: dict[str, Any] = {"batch": BATCH, "custom_id": name, **case.options}
        match case.way:
            case "celery":
                job = {"request": case.request, **options}
                return str(bare.send_task("chat.submit", args=[job], queue="chat.intake").id)
            case "submit":
                return client.submit(case.request, **options)
            case "enqueue":
                with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                    return client.enqueue(connection, case.request, **options)
            case "sql":
                job_id = str(uuid.uuid4())
                text = json.dumps({"request": case.request, **options})
                with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                    connection.execute("INSERT INTO submit_v1 (id, job) VALUES (?, ?)", (job_id, text))
                return job_id

    def _watch(self) -> bool:
        """Print the number of jobs in each status until all have ended; False if the time or the worker ends first."""
        give_up = time.monotonic() + self.timeout_s
        while time.monotonic() < give_up and self.stack.worker_lives():
            known = {row["id"]: row["status"] for row in self._read(STATUSES)}
            statuses = [known.get(job_id, "on its way") for job_id in self.ids.values()]
            self._progress({status: statuses.count(status) for status in sorted(set(statuses))})
            if set(statuses) <= FINAL:
                return True
            time.sleep(LOOK_S)
        output.echo(f"Not all jobs ended within {self.timeout_s:g} s.", err=True)
        return False

    def _await_webhooks(self) -> bool:
        give_up = time.monotonic() + self.timeout_s
        while time.monotonic() < give_up:
            if all(row["status"] == "delivered" for row in self._read(DELIVERIES)):
                return True
            time.sleep(LOOK_S)
        output.echo(f"Not all webhooks were delivered within {self.timeout_s:g} s.", err=True)
        return False

    def _webhook_faults(self) -> list[str]:
        received = self.receiver.received
        faults = [f"webhook: {request.fault}" for request in received if request.fault is not None]
        reported = {request.event["data"]["id"] for request in received if request.event is not None}
        ended = {row["id"] for row in self._read("SELECT id FROM jobs_v1 WHERE batch = ?", [BATCH])}
        return faults + [f"webhook: none was sent for job {job_id}" for job_id in sorted(ended - reported)]

    def _progress(self, counts: dict[str, int]) -> None:
        text = "  ".join(f"{number} {status}" for status, number in counts.items())
        if text != self._shown:
            self._shown = text
            # A terminal line is overwritten; a file gets a new line.
            click.echo(f"\r  {text}\x1b[K" if sys.stdout.isatty() else f"  {text}", nl=not sys.stdout.isatty())

    def _read(self, query: str, values: Sequence[str] = ()) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def _row(self, job_id: str) -> dict[str, Any] | None:
        found = self._read(
            "SELECT * FROM jobs_v1 WHERE id = (SELECT job_id FROM job_ids_v1 WHERE id = ? ORDER BY outcome LIMIT 1)",
            [job_id],
        )
        return found[0] if found else None

    def _faults(self, case: Case) -> list[str]:
        expected = {name: getattr(case, name) for name in ("status", "attempts", "finish_reason", "error_code")}
        faults = []
        for name in _names(case):
            row = self._row(self.ids[name])
            if row is None:
                faults.append(f"{name}: it has no row")
                continue
            faults += [
                f"{name}: {column} is {row[column]!r}, not {wanted!r}"
                for column, wanted in expected.items()
                if wanted is not None and row[column] != wanted
            ]
            if case.usage and self.stack.given.endpoint is None and not row["completion_tokens"]:
                faults.append(f"{name}: its row has no usage")
        return faults

    def _print(self) -> None:
        results = self._read(RESULTS)
        output.echo("\n\n" + output.rows(COLUMNS, results))
        output.echo("\n" + output.rows(["model", "requests", "prompt", "completion"], self._read(USAGE)))
        output.echo(f"\nThe same for you, in any SQL client:\n\n{RESULTS};\n\n{USAGE};")
        self._print_webhook()

    def _print_webhook(self) -> None:
        """Print the last webhook as the receiver got it."""
        verified = [request for request in self.receiver.received if request.event is not None]
        if not verified:
            return
        last = verified[-1]
        shown = {name: last.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        body = last.body.decode()
        output.echo(f"\n{len(verified)} webhooks were received and their signatures verified. The last webhook:\n")
        output.echo(f"POST {last.path}\n{output.fields(shown)}\n\n{body[:SHOWN]}{'…' if len(body) > SHOWN else ''}")


def _names(case: Case) -> list[str]:
    return [case.name] if case.times == 1 else [f"{case.name} {number + 1}" for number in range(case.times)]
