"""The command `afterword`: its tree, and the sentences for errors that a user can repair.

`COMMANDS` names the module of each command. Click imports a module when its command runs, and a command imports
SQLAlchemy, Celery or httpx inside its function: `afterword --help` loads none of them.
"""

import sys
from typing import Any

import click

from worker.cli.support.lazy_commands import LazyCommands, examples
from worker.core.printable import printable

COMMANDS = {
    "Try it": {
        "demo": "worker.cli.demo:demo",
        "dev": "worker.cli.dev:dev",
        "fake-endpoint": "worker.cli.fake_endpoint:fake_endpoint",
    },
    "Jobs": {
        "submit": "worker.cli.submit:submit",
        "status": "worker.cli.jobs:status",
        "wait": "worker.cli.wait:wait",
        "jobs": "worker.cli.jobs:jobs",
        "cancel": "worker.cli.cancel:cancel",
        "replay": "worker.cli.replay:replay",
        "events": "worker.cli.events:events",
    },
    "Webhooks": {
        "webhooks": "worker.cli.webhooks:webhooks",
        "secrets": "worker.cli.secrets:secrets",
    },
    "Operation": {
        "worker": "worker.cli.worker:worker",
        "config": "worker.cli.config:config",
        "db": "worker.cli.db:db",
        "doctor": "worker.cli.doctor:doctor",
        "verify": "worker.cli.verify:verify",
        "inspect": "worker.cli.inspect:inspect",
        "endpoints": "worker.cli.endpoints:endpoints",
        "dead-letters": "worker.cli.dead_letters:dead_letters",
    },
}

# Errors with a text for the user, by module and class.
SENTENCES = (
    ("worker.settings", "BadSettings"),
    ("worker.dev.redis", "NoRedis"),
    ("worker.dev.stack", "DidNotStart"),
    ("worker.store.engine", "UnusableDatabase"),
    ("worker.jobs.store.listing", "CannotRead"),
    ("worker.webhooks.vault", "BadMasterKeys"),
    ("worker.webhooks.vault", "CannotOpen"),
)


class CommandLine(click.Group):
    """The top of the tree. An error of SENTENCES becomes one sentence; a bug keeps its traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except _loaded_errors() as error:
            raise click.ClickException(printable(str(error))) from error
        except click.ClickException as error:
            message = error.format_message()
            if message == printable(message):
                raise
            kind = click.UsageError if isinstance(error, click.UsageError) else click.ClickException
            raise kind(printable(message)) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section; each summary fits into the line."""
        for section, places in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in places])


def _loaded_errors() -> tuple[type[Exception], ...]:
    """Return the errors of modules that are loaded: the other modules cannot have raised theirs, and cost 0.4 s."""
    loaded = ((sys.modules.get(module), name) for module, name in SENTENCES)
    return tuple(getattr(module, name) for module, name in loaded if module is not None)


@click.group(
    cls=CommandLine,
    commands=LazyCommands({name: place for places in COMMANDS.values() for name, place in places.items()}),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "afterword demo                        # see everything in a minute",
        "afterword dev                         # run all parts on this machine",
        "afterword jobs list --status failed",
        "afterword webhooks --help             # the commands of a group",
    ),
)
@click.version_option(package_name="afterword", message="afterword %(version)s")
def main() -> None:
    """Run chat completions in the background.

    Jobs come in by a Redis queue or by SQL; the answers, tokens and attempts are in SQL views. Settings are environment
    variables: see `afterword config --reference`.
    """
