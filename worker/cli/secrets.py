"""`afterword secrets`: create, check and rotate the master keys."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from worker.cli.support import output
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.webhooks.receiver_lookup import ReceiverCommand, receiving

if TYPE_CHECKING:
    from worker.webhooks.key_rotation import UnusableSecret


@click.group(
    epilog=examples(
        'export AFTERWORD_SECRET_KEYS="$(afterword secrets new-key)"',
        "afterword secrets check",
        "afterword secrets rotate",
    )
)
def secrets() -> None:
    """Create, check and rotate the master keys.

    The keys in AFTERWORD_SECRET_KEYS encrypt the secrets of receivers. The first key encrypts, every key decrypts.
    """


@secrets.command("new-key", epilog=examples("afterword secrets new-key", "afterword secrets new-key --json"))
@json_option
def new_key(as_json: bool) -> None:
    """Print a new key for AFTERWORD_SECRET_KEYS.

    The command changes nothing. Standard error says how to use the key.
    """
    from worker.webhooks.vault import new_master_key

    new = new_master_key()
    output.as_json({"key": new}) if as_json else output.echo(new)
    output.echo(
        "Put it at the end of AFTERWORD_SECRET_KEYS of every worker and restart them; then move it to the front, "
        "restart again and run: afterword secrets rotate",
        err=True,
    )


@secrets.command(epilog=examples("afterword secrets check", "afterword secrets check --json"))
@json_option
def check(as_json: bool) -> None:
    """Decrypt every secret and count the secrets of each key.

    A key without secrets may be removed. Exit code 1: a secret cannot be decrypted or belongs to another row; standard
    error names its receiver.
    """
    with receiving() as command:
        found = list(_all(command))
        configured = command.vault().key_ids
    needed = Counter(secret.key_id for secret in found if secret.key_id is not None)
    faults = {f"{secret.receiver} ({secret.kind})": secret.fault for secret in found if secret.fault is not None}
    if as_json:
        keys = {key_id: needed[key_id] for key_id in configured}
        output.as_json({"secrets": len(found), "keys": keys, "faults": faults})
    else:
        lines = (_line(key_id, needed[key_id], first=key_id == configured[0]) for key_id in configured)
        output.echo("\n".join(lines))
        _print_faults(faults)
    if faults:
        raise SystemExit(ExitCode.FAILED)


@secrets.command(epilog=examples("afterword secrets rotate", "afterword secrets rotate --json"))
@json_option
def rotate(as_json: bool) -> None:
    """Encrypt every secret again, with the first key.

    You may interrupt the command and run it again. Exit code 1: a secret cannot be decrypted; it is left unchanged.
    """
    from worker.webhooks.key_rotation import reseal
    from worker.webhooks.store.secrets import FIRST

    resealed, faults = 0, dict[str, str | None]()
    with receiving() as command:
        vault = command.vault()
        after: str | None = FIRST
        while after is not None:
            with command.engine.begin() as connection:
                step = reseal(connection, vault, after=after)
            after, resealed = step.after, resealed + step.resealed
            faults |= {f"{secret.receiver} ({secret.kind})": secret.fault for secret in step.faults}
    first = vault.key_ids[0]
    if as_json:
        output.as_json({"key": first, "resealed": resealed, "faults": faults})
    else:
        _print_faults(faults)
        output.echo(f"secrets encrypted again with {first}, the first key: {resealed}")
    if faults:
        raise SystemExit(ExitCode.FAILED)


def _print_faults(faults: Mapping[str, str | None]) -> None:
    for secret, fault in faults.items():
        output.echo(f"{secret}: {fault}", err=True)


def _all(command: ReceiverCommand) -> "Iterator[UnusableSecret]":
    from worker.webhooks.key_rotation import examine
    from worker.webhooks.store.secrets import FIRST

    vault, after = command.vault(), FIRST
    while True:
        with command.engine.begin() as connection:
            following, found = examine(connection, vault, after=after)
        yield from found
        if following is None:
            return
        after = following


def _line(key_id: str, needed: int, *, first: bool) -> str:
    if first:
        return f"{key_id}  seals; {needed} secrets"
    remedy = "run: afterword secrets rotate" if needed else "it is needed no more and can be taken out"
    return f"{key_id}  {needed} secrets; {remedy}"
