"""A receiver's values as options of `add` and `update`: read, checked by the rules of core, encrypted if secret."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from worker.cli.support.times import Duration
from worker.cli.webhooks.receiver_lookup import ReceiverCommand
from worker.core.duration import seconds
from worker.webhooks.core.custom_headers import custom_header_fault
from worker.webhooks.core.event import Payload
from worker.webhooks.core.payload import Profile
from worker.webhooks.core.registration import ON_EXHAUSTED, ORDERINGS, Registration, read_registration

if TYPE_CHECKING:
    from worker.webhooks.store.receivers import Receiver, Sealed

# Sixteen headers of 4 KiB, with room for blank lines.
_LONGEST_FILE = 128 * 1024
F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--event", "events", multiple=True, help="Send this event, such as job.failed; default job.*."),
    click.option(
        "--payload", type=click.Choice([payload.value for payload in Payload]), help="How much of a result to send."
    ),
    click.option(
        "--profile",
        type=click.Choice([profile.value for profile in Profile]),
        help="Format of the event: our own or OpenAI's.",
    ),
    click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Send this with each delivery."),
    click.option(
        "--header-file",
        type=click.File(),
        help="Read headers with secrets from this file, a line 'NAME: VALUE' each (-: standard input).",
    ),
    click.option("--timeout", "timeout_s", type=Duration(), help="Time for its answer, 1s to 30s."),
    click.option("--schedule", help="Waits between attempts, such as 5,30,5m,1h; or usual."),
    click.option("--rate", help="Deliveries a second at most; or none."),
    click.option("--in-flight", type=int, help="Deliveries at a time."),
    click.option("--ordering", type=click.Choice(ORDERINGS), help="per_key: send an ordering_key in order."),
    click.option(
        "--on-exhausted",
        type=click.Choice(ON_EXHAUSTED),
        help="After a delivery has failed for good: skip it, or block later ones of its ordering_key.",
    ),
)


def receiver_options(command: F) -> F:
    """Give a command an option for each value of a receiver."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def registration(name: str, values: Mapping[str, Any], *, old: bool = False) -> Registration:
    """Return the registration; UsageError names every fault in one sentence."""
    read = read_registration(name, values, old=old)
    if isinstance(read, Registration):
        return read
    raise click.UsageError("; ".join(f"{fault.path} {fault.message}" for fault in read))


def given_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the options that were given; None restores a default."""
    values = {name: value for name, value in given.items() if value not in (None, ())}
    if "events" in values:
        values["events"] = list(values["events"])
    if (schedule := values.get("schedule")) is not None:
        values["schedule"] = None if schedule == "usual" else [_wait_s(text) for text in schedule.split(",")]
    if (rate := values.pop("rate", None)) is not None:
        values["rate_per_s"] = None if rate == "none" else _rate(rate)
    return values


def _wait_s(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise click.UsageError(f"--schedule holds {text!r}, no number; {error}") from error


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.UsageError(
            f"--rate is {text!r}, no number; write deliveries a second such as 20 or 0.5, or none"
        ) from error


def merged(old: Registration, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receiver's values with the given ones in their place."""
    kept = {name: getattr(old, name) for name in old.__slots__ if name not in ("name", "subscription")}
    kept |= {name: getattr(old.subscription, name) for name in ("events", "payload", "profile")}
    if "profile" in values:
        kept.pop("payload")  # each profile has its own default
    return kept | dict(values)


def header_lines(lines: Sequence[str], file: TextIO | None = None) -> dict[str, str]:
    """Read headers, `Name: value` as in HTTP: from options, then from the lines of a file.

    A file keeps a secret out of the shell's history and the process list. No error quotes a value.
    """
    in_file = [] if file is None else [line for line in file.read(_LONGEST_FILE).splitlines() if line.strip()]
    headers = {}
    for line in (*lines, *in_file):
        name, colon, value = line.partition(":")
        fault = custom_header_fault(name.strip(), value.strip()) if colon else "write each header as 'Name: value'"
        if fault is not None:
            raise click.UsageError(fault)
        headers[name.strip()] = value.strip()
    return headers


def check_url(command: ReceiverCommand, url: str) -> None:
    """Raise UsageError if the text of an address already shows that nothing may be sent there."""
    from worker.webhooks.net.url import target_fault
    from worker.webhooks.service import policy_of

    if fault := target_fault(url, policy_of(command.settings)):
        raise click.UsageError(fault)


def resealed(
    command: ReceiverCommand, old: "Receiver", *, url: str | None, headers: Mapping[str, str], dropped: Sequence[str]
) -> "Sealed":
    """Return a receiver's encrypted values with another address, more headers or fewer."""
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import CannotOpen, SecretFault

    if url is None and not headers and not dropped:
        return old.sealed
    sealed, vault = old.sealed, command.vault()
    before = sealed_fields.url_of(vault, old.id, sealed.url, sealed.url_sealed)
    try:
        kept = sealed_fields.headers_of(vault, old.id, sealed.headers_sealed, url=before)
    except CannotOpen as error:
        # Headers of another origin must be given again; headers under a missing key must not be lost.
        if error.fault is not SecretFault.MOVED or not headers:
            raise
        kept = {}
    if missing := {name.lower() for name in dropped} - {name.lower() for name in kept}:
        raise click.ClickException(f"{old.name} has no header {', '.join(sorted(missing))}; see webhooks show")
    gone = {name.lower() for name in (*headers, *dropped)}
    stays = {name: value for name, value in kept.items() if name.lower() not in gone}
    if url is not None:
        if stays and sealed_fields.origin_of(url) != sealed_fields.origin_of(before):
            raise click.ClickException(
                f"{old.name} has the headers {', '.join(sorted(stays))} for {sealed_fields.origin_of(before)}; another "
                "address does not get them: give them again with --header-file, or drop them with --drop-header"
            )
        shown, hidden = sealed_fields.seal_url(vault, old.id, url)
        sealed = replace(sealed, url=shown, url_sealed=hidden)
    return replace(
        sealed, headers_sealed=sealed_fields.seal_headers(vault, old.id, {**stays, **headers}, url=url or before)
    )
