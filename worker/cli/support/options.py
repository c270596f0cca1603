"""Options that mean the same in every command."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Change nothing; only count or list the changes.")
tenant_option = click.option(
    "--tenant", default="default", show_default=True, help="The tenant that owns the receiver."
)


def limit_option(default: int = 20) -> Callable[[Command], Command]:
    """Return the option `--limit`: the number of rows to print."""
    return click.option(
        "--limit",
        type=click.IntRange(1, 10_000),
        default=default,
        show_default=True,
        help="Print at most this many rows.",
    )
