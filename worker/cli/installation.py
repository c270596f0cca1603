"""Commands on the installation: config, db upgrade, doctor."""

import json
from dataclasses import asdict
from typing import Any

import click

from worker.cli import main, output
from worker.cli.database import database
from worker.settings import load
from worker.settings.page import masked, reference


@main.command()
@click.option("--reference", "page", is_flag=True, help="Print the page of all settings instead (ops/settings.md).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
def config(page: bool, as_json: bool) -> None:
    """Print the settings in effect; secrets are masked."""
    if page:
        output.echo(reference(), nl=False)
        return
    shown = masked(load())
    if as_json:
        output.as_json(shown)
        return
    endpoints: dict[str, Any] = shown.pop("endpoints")
    output.echo("\n".join(f"{name}={'' if value is None else value}" for name, value in shown.items()))
    for name, endpoint in endpoints.items():
        output.echo(f"\n[endpoints.{name}]")
        known = {field: value for field, value in endpoint.items() if value not in (None, {})}
        output.echo("\n".join(f"{field} = {json.dumps(value)}" for field, value in known.items()))


@main.group()
def db() -> None:
    """Look after the database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this release's tables and views; safe to repeat."""
    with database(load()) as listing:
        before, newest = listing.state()
        if before is not None and before > newest:
            # A release before, installed again: its steps must go on where it can work.
            if fault := listing.fault():
                raise click.ClickException(fault)
            output.echo(f"the database is at {before} of a newer release and serves this one; nothing to do")
        elif before == newest:
            output.echo(f"the database is at {newest}; nothing to do")
        else:
            listing.upgrade()
            output.echo(f"the database went from {before or 'nothing'} to {newest}")
        if warning := listing.open_schema():
            output.echo(f"warning: no worker starts yet: {warning}", err=True)


@main.command()
@click.option("--worker", "worker_only", is_flag=True, help="Only whether a worker of this host is alive (for probes).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
def doctor(worker_only: bool, as_json: bool) -> None:
    """Check settings, database, Redis, endpoint and workers; exit code 1 when something must be mended."""
    from worker.cli.doctor import examine, own_worker

    settings = load()
    findings = [own_worker(settings)] if worker_only else list(examine(settings))
    if as_json:
        output.as_json([asdict(one) for one in findings])
    else:
        output.echo("\n".join(f"{one.state:7} {one.part:9} {one.text}" for one in findings))
    if any(one.state == "failed" for one in findings):
        raise SystemExit(1)
