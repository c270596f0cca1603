"""`afterword endpoints`: list endpoints with the reason of a pause; pause and resume them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import hold_words, output
from worker.cli.support.database import migrated, writer
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.settings import load

if TYPE_CHECKING:
    from worker.settings import Settings

COLUMNS = ["name", "state", "cause", "reason", "since", "next_probe", "queued", "in_progress"]


@click.group(
    epilog=examples(
        "afterword endpoints list",
        "afterword endpoints show default",
        "afterword endpoints resume default",
    )
)
def endpoints() -> None:
    """List, show, pause and resume endpoints."""


@endpoints.command("list", epilog=examples("afterword endpoints list", "afterword endpoints list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List the endpoints, and the reason of a pause.

    The list has the endpoints of these settings and those that the database knows from other workers.
    """
    found = _read(load())
    if as_json:
        output.as_json(found)
        return
    output.echo(output.rows(COLUMNS, found) if found else "no endpoints; set AFTERWORD_ENDPOINT_URL")
    for row in found:
        if (reason := hold_words.endpoint(row)) is not None:
            output.echo(f"\n{row['name']}: {reason}")


@endpoints.command(epilog=examples("afterword endpoints show default", "afterword endpoints show default --json"))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an endpoint, and the reason of a pause."""
    settings = load()
    row = _known(name, settings)
    if as_json:
        output.as_json(row)
        return
    output.echo(output.fields(row))
    if (reason := hold_words.endpoint(row)) is not None:
        output.echo(f"\n{row['name']}: {reason}")


@endpoints.command(epilog=examples("afterword endpoints pause default"))
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Start no more jobs of an endpoint until `resume`.

    Running calls go on. Queued jobs wait, and lose no attempts.
    """
    from worker.jobs.store import endpoints as store

    _change(name, lambda connection: store.pause(connection, name))
    _print({"name": name, "state": "paused"}, f"{name} is paused until: afterword endpoints resume {name}", as_json)


@endpoints.command(epilog=examples("afterword endpoints resume default"))
@click.argument("name")
@json_option
def resume(name: str, as_json: bool) -> None:
    """End the pause of an endpoint at once.

    It ends an operator's pause and an automatic one, and starts a job that waits alone for this endpoint.
    """
    from worker.jobs.store import endpoints as store

    changed = _change(name, lambda connection: store.resume(connection, name))
    _print({"name": name, "state": "open"}, f"{name} is open" + ("" if changed else " already"), as_json)


def _change(name: str, change: Callable[[Any], Any]) -> Any:
    settings = load()
    with writer(settings) as engine:
        _known(name, settings)
        with engine.begin() as connection:
            return change(connection)


def _read(settings: "Settings") -> list[dict[str, Any]]:
    """Return the endpoints of the settings and of the database, by name."""
    with migrated(settings) as listing:
        known = {row["name"]: row for row in listing.endpoints()}
    unknown = {"state": "open", "queued": 0, "in_progress": 0}
    return [
        {column: None for column in (*COLUMNS, "suspect_job", "message")}
        | {"name": name, "configured": name in settings.endpoints}
        | known.get(name, unknown)
        for name in sorted({*known, *settings.endpoints})
    ]


def _known(name: str, settings: "Settings") -> dict[str, Any]:
    """Return the row of an endpoint; a sentence with the known names if there is none."""
    found = {row["name"]: row for row in _read(settings)}
    if name not in found:
        names = ", ".join(found) or "none"
        raise click.ClickException(f"no endpoint {name!r} is configured here or known to the database; known: {names}")
    return found[name]


def _print(values: dict[str, str], sentence: str, as_json: bool) -> None:
    output.as_json(values) if as_json else output.echo(sentence)
