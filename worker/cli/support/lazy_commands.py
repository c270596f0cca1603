"""Groups that import a command only when it is used, and the helpers that all groups share."""

from collections.abc import Iterator, Mapping, MutableMapping
from copy import copy
from importlib import import_module
from typing import Any

import click


class LazyCommands(MutableMapping[str, click.Command]):
    """The commands of a group by name; a place such as `worker.cli.jobs:jobs` is imported at the first access."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._commands: dict[str, click.Command | str] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        found = self._commands[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            found = self._commands[name] = command
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def examples(*lines: str) -> str:
    """Return the end of a command's help; the backspace keeps click from joining the lines."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def hidden_alias(command: click.Command, name: str) -> click.Command:
    """Return a command under a name of an earlier release; help does not list it."""
    alias = copy(command)
    alias.name, alias.hidden = name, True
    return alias


def hidden_options(command: click.Command) -> list[click.Parameter]:
    """Return hidden copies of a command's options: its group took them before the command existed."""
    options = []
    for parameter in command.params:
        option = copy(parameter)
        if isinstance(option, click.Option):
            option.hidden = True
        options.append(option)
    return options


def list_by_default(context: click.Context, lister: click.Command, options: Mapping[str, Any]) -> None:
    """Run `lister` when its group is used without a command; else pass the group's options on to `list`."""
    if context.invoked_subcommand is None:
        context.invoke(lister, **options)
    else:
        context.default_map = {"list": dict(options)}
