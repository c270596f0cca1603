"""`afterword endpoints`: which endpoints rest and why; an operator's own pause, and the end of any."""

from typing import Any

import click

from worker.cli import hold_words, main, output
from worker.cli.database import migrated, writer
from worker.settings import Settings, load

COLUMNS = ["name", "state", "cause", "reason", "since", "next_probe", "queued", "in_progress"]
script = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


@main.group()
def endpoints() -> None:
    """See which endpoints rest; pause and resume them."""


@endpoints.command("list")
@script
def list_them(as_json: bool) -> None:
    """List the endpoints that are configured here or known to the database."""
    settings = load()
    with migrated(settings) as listing:
        known = {row["name"]: row for row in listing.endpoints()}
    unknown = {"state": "open", "queued": 0, "in_progress": 0}
    names = sorted({*known, *settings.endpoints})
    found: list[dict[str, Any]] = [
        {column: None for column in (*COLUMNS, "suspect_job", "message")}
        | {"name": name, "configured": name in settings.endpoints}
        | known.get(name, unknown)
        for name in names
    ]
    if as_json:
        output.as_json(found)
    else:
        output.echo(output.rows(COLUMNS, found) if found else "no endpoints; set AFTERWORD_ENDPOINT_URL")
        for row in found:
            if (reason := hold_words.endpoint(row)) is not None:
                output.echo(f"\n{row['name']}: {reason}")


@endpoints.command()
@click.argument("name")
@script
def pause(name: str, as_json: bool) -> None:
    """Start no more jobs of an endpoint until `resume`; what runs goes on, what is queued waits."""
    from worker.jobs.store import endpoints as resting

    settings = load()
    with writer(settings) as engine:
        _check(name, settings)
        with engine.begin() as connection:
            resting.pause(connection, name)
    _tell({"name": name, "state": "paused"}, f"{name} is paused until: afterword endpoints resume {name}", as_json)


@endpoints.command()
@click.argument("name")
@script
def resume(name: str, as_json: bool) -> None:
    """Start the jobs of an endpoint at once, whoever paused it, and the one that waits for it alone."""
    from worker.jobs.store import endpoints as resting

    settings = load()
    with writer(settings) as engine:
        _check(name, settings)
        with engine.begin() as connection:
            changed = resting.resume(connection, name)
    _tell({"name": name, "state": "open"}, f"{name} is open" + ("" if changed else " already"), as_json)


def _check(name: str, settings: Settings) -> None:
    with migrated(settings) as listing:
        known = {*settings.endpoints, *(row["name"] for row in listing.endpoints())}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise click.ClickException(f"no endpoint {name!r} is configured here or known to the database; known: {listed}")


def _tell(values: dict[str, str], sentence: str, as_json: bool) -> None:
    output.as_json(values) if as_json else output.echo(sentence)
