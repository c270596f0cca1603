"""Rotation of the master keys: checks and reseals every secret; a worker checks a sample at its start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from worker.webhooks import sealed_fields
from worker.webhooks.store import secrets
from worker.webhooks.store.secrets import SealedRow
from worker.webhooks.vault import SETTING, BadMasterKeys, CannotOpen, Vault

KINDS: Final = {
    "url_sealed": sealed_fields.URL,
    "headers_sealed": sealed_fields.HEADERS,
    "keys_sealed": sealed_fields.KEYS,
}
# Receivers that a worker checks at its start: enough to see that no key fits, few enough to start fast.
SAMPLE: Final = 100


@dataclass(frozen=True, slots=True)
class UnusableSecret:
    """A sealed secret and the id of the master key that opens it; `fault` is a sentence if it cannot be opened.

    `receiver` is `tenant/name`, `kind` a value of KINDS.
    """

    receiver: str
    kind: str
    key_id: str | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class RotationPage:
    """The result for a page of receivers. `after`: the id to continue after, None after the last page.

    `resealed` counts the new tokens; `faults` are the secrets that cannot be opened.
    """

    after: str | None
    resealed: int
    faults: tuple[UnusableSecret, ...]


def examine(
    connection: Connection, vault: Vault, *, after: str = secrets.FIRST
) -> tuple[str | None, list[UnusableSecret]]:
    """Return the id to continue after (None after the last page) and the secrets of a page of receivers."""
    rows = secrets.page(connection, after=after)
    return _next(rows), [secret for row in rows for secret in _open_all(row, vault)]


def reseal(connection: Connection, vault: Vault, *, after: str = secrets.FIRST) -> RotationPage:
    """Seal a page's secrets with the first master key, unless they are already; bind headers without an origin.

    It can be stopped and repeated. A secret that an operator changes in the meantime keeps its new token.
    """
    rows = secrets.page(connection, after=after)
    resealed, faults = 0, []
    for row in rows:
        for (column, token), secret in zip(row.tokens, _open_all(row, vault), strict=True):
            if secret.fault is not None:
                faults.append(secret)
            elif (new := _new_token(row, column, token, secret, vault)) is not None:
                resealed += secrets.replace(connection, row.id, column, old=token, new=new)
    return RotationPage(_next(rows), resealed, tuple(faults))


def unusable_secrets(connection: Connection, vault_keys: Sequence[str]) -> str | None:
    """Return a sentence why a worker with these master keys cannot serve the receivers of its database, or None.

    One secret of the sample that opens is enough: a damaged row must not stop all workers from starting.
    """
    if not secrets.any_sealed(connection):
        return None
    try:
        vault = Vault(vault_keys)
    except BadMasterKeys as error:
        return f"the database has receivers of webhooks, but {error}"
    sample = [secret for row in secrets.page(connection, limit=SAMPLE) for secret in _open_all(row, vault)]
    if not sample or any(secret.fault is None for secret in sample):
        return None
    return (
        f"no key of {SETTING} ({', '.join(vault.key_ids)}) opens the secrets of receivers in the database; add the key "
        "that sealed them, then check with: afterword secrets check"
    )


def _open_all(row: SealedRow, vault: Vault) -> Iterator[UnusableSecret]:
    receiver = f"{row.tenant}/{row.name}"
    for column, token in row.tokens:
        kind = KINDS[column]
        try:
            vault.open(row.id, kind, token)
            if column == "headers_sealed":
                sealed_fields.headers_of(vault, row.id, token, url=_url(row, vault))
        except CannotOpen as error:
            yield UnusableSecret(receiver, kind, None, str(error))
        else:
            yield UnusableSecret(receiver, kind, vault.sealed_with(token), None)


def _new_token(row: SealedRow, column: str, token: str, secret: UnusableSecret, vault: Vault) -> str | None:
    """Return the replacement of `token`, or None to keep it."""
    if column == "headers_sealed" and (bound := sealed_fields.bind_headers(vault, row.id, token, url=_url(row, vault))):
        return bound
    return vault.rotate(token) if secret.key_id != vault.key_ids[0] else None


def _url(row: SealedRow, vault: Vault) -> str:
    return sealed_fields.url_of(vault, row.id, row.url, dict(row.tokens).get("url_sealed"))


def _next(rows: Sequence[SealedRow]) -> str | None:
    return rows[-1].id if len(rows) == secrets.PAGE else None
