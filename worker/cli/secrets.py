"""Commands on the master keys: make one, check what needs which, seal everything with the first."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.cli import main, output
from worker.cli.jobs import script
from worker.cli.receiver_lookup import ReceiverCommand, receiving

if TYPE_CHECKING:
    from worker.webhooks.key_rotation import UnusableSecret


@main.group()
def secrets() -> None:
    """Look after AFTERWORD_SECRET_KEYS, which seal the secrets of receivers."""


@secrets.command("new-key")
@script
def new_key(as_json: bool) -> None:
    """Print a new key for AFTERWORD_SECRET_KEYS; nothing is changed."""
    from worker.webhooks.vault import new_master_key

    new = new_master_key()
    output.as_json({"key": new}) if as_json else output.echo(new)
    output.echo(
        "Put it at the end of AFTERWORD_SECRET_KEYS of every worker and restart them; then move it to the front, "
        "restart again and run: afterword secrets rotate",
        err=True,
    )


@secrets.command()
@script
def check(as_json: bool) -> None:
    """Open every secret; exit code 1, with names, when one cannot be opened or was moved."""
    with receiving() as place:
        found = list(_all(place))
        configured = place.vault().key_ids
    needed = Counter(one.key_id for one in found if one.key_id is not None)
    faults = {f"{one.receiver} ({one.kind})": one.fault for one in found if one.fault is not None}
    if as_json:
        keys = {one: needed[one] for one in configured}
        output.as_json({"secrets": len(found), "keys": keys, "faults": faults})
    else:
        output.echo("\n".join(_line(one, needed[one], first=one == configured[0]) for one in configured))
        for whose, fault in faults.items():
            output.echo(f"{whose}: {fault}", err=True)
    if faults:
        raise SystemExit(1)


@secrets.command()
@script
def rotate(as_json: bool) -> None:
    """Seal every secret with the first key; it can be broken off and run again at any time."""
    from worker.webhooks.key_rotation import reseal
    from worker.webhooks.store.secrets import FIRST

    resealed, faults = 0, dict[str, str | None]()
    with receiving() as place:
        vault = place.vault()
        after: str | None = FIRST
        while after is not None:
            with place.engine.begin() as connection:
                step = reseal(connection, vault, after=after)
            after, resealed = step.after, resealed + step.resealed
            faults |= {f"{one.receiver} ({one.kind})": one.fault for one in step.faults}
    first = vault.key_ids[0]
    if as_json:
        output.as_json({"key": first, "resealed": resealed, "faults": faults})
    else:
        for whose, fault in faults.items():
            output.echo(f"{whose}: {fault}", err=True)
        output.echo(f"secrets sealed anew with {first}, the first key: {resealed}")
    if faults:
        raise SystemExit(1)


def _all(place: ReceiverCommand) -> "Iterator[UnusableSecret]":
    from worker.webhooks.key_rotation import examine
    from worker.webhooks.store.secrets import FIRST

    vault, after = place.vault(), FIRST
    while True:
        with place.engine.begin() as connection:
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
