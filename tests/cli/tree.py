"""The tree of commands, walked as click does."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import click

from worker.cli import main


@dataclass(frozen=True, slots=True)
class Node:
    """A command with its words, `("webhooks", "deliveries", "list")`, and its context."""

    words: tuple[str, ...]
    command: click.Command
    context: click.Context

    def help(self) -> str:
        """Return its help as a terminal of 80 columns shows it."""
        return self.command.get_help(self.context)

    def __str__(self) -> str:
        return " ".join(("afterword", *self.words))


def nodes(*, hidden: bool = False) -> list[Node]:
    """Return every command and group, the top included; hidden ones only if asked for."""
    return [node for node in _below(_node((), main, None)) if hidden or not node.command.hidden]


def _node(words: tuple[str, ...], command: click.Command, parent: click.Context | None) -> Node:
    name = words[-1] if words else "afterword"
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80, max_content_width=80)
    return Node(words, command, context)


def _below(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node.command, click.Group):
        for name in node.command.list_commands(node.context):
            command = node.command.get_command(node.context, name)
            assert command is not None, name
            yield from _below(_node((*node.words, name), command, node.context))


def find(*words: str) -> click.Command:
    """Return the command of these words, hidden or not."""
    return next(node.command for node in nodes(hidden=True) if node.words == words)


def examples(node: Node) -> list[str]:
    """Return the lines below `Examples:` in a command's help."""
    _, found, after = node.help().partition("Examples:\n")
    return [line.strip() for line in after.splitlines() if line.strip()] if found else []


def parse(line: str) -> click.Context:
    """Parse each word of a line that runs `afterword`, alone or behind a pipe or a variable; return its context."""
    line = line.partition("afterword ")[2].partition(" < ")[0].partition(')"')[0]
    command, context, words = main, click.Context(main, info_name="afterword"), shlex.split(line, comments=True)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"{name} in {line}"
        if not words or not isinstance(found, click.Group):
            return found.make_context(name, words, parent=context)
        context, command = click.Context(found, info_name=name, parent=context), found  # type: ignore[assignment]
    try:
        return command.make_context(context.info_name, words)
    except click.exceptions.Exit:  # --help and --version
        return context
