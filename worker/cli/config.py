"""`afterword config`: print the settings in effect."""

import json
from typing import Any

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.settings import load


@click.command(
    epilog=examples(
        "afterword config",
        "afterword config --json",
        "afterword config --reference          # every setting with its default",
    )
)
@click.option("--reference", "page", is_flag=True, help="Print the page of all settings (ops/settings.md) instead.")
@json_option
def config(page: bool, as_json: bool) -> None:
    """Print the settings in effect, with secrets masked.

    If settings are wrong, the command prints every fault.
    """
    from worker.settings.page import masked, reference

    if page:
        output.echo(reference(), nl=False)
        return
    shown = masked(load())
    if as_json:
        output.as_json(shown)
        return
    sections: dict[str, dict[str, Any]] = {f"endpoints.{name}": found for name, found in shown.pop("endpoints").items()}
    # A tenant's name may have any character.
    sections |= {f"tenants.{json.dumps(name)}": found for name, found in shown.pop("tenants").items()}
    output.echo("\n".join(f"{name}={'' if value is None else value}" for name, value in shown.items()))
    for name, section in sections.items():
        output.echo(f"\n[{name}]")
        known = {field: value for field, value in section.items() if value not in (None, {})}
        output.echo("\n".join(f"{field} = {json.dumps(value)}" for field, value in known.items()))
