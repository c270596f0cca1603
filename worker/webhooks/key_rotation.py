"""Changing the master keys: which of them each secret needs, sealing all with the first, and whether we can start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from worker.webhooks import sealed_fields
from worker.webhooks.store import secrets as sealed
from worker.webhooks.store.secrets import SealedRow
from worker.webhooks.vault import SETTING, BadMasterKeys, CannotOpen, Vault

KINDS: Final = {
    "url_sealed": sealed_fields.URL,
    "headers_sealed": sealed_fields.HEADERS,
    "keys_sealed": sealed_fields.KEYS,
}
# Enough to know that none of the keys is right, and no more than a start can afford.
SAMPLE: Final = 100


@dataclass(frozen=True, slots=True)
class UnusableSecret:
    """One sealed secret: whose, which, and the master key that opens it; `fault` is a sentence when none does."""

    receiver: str
    kind: str
    key_id: str | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class RotationPage:
    """What came of a page of receivers: where the next begins (None: that was the last), and its secrets."""

    after: str | None
    resealed: int
    faults: tuple[UnusableSecret, ...]


def examine(
    connection: Connection, vault: Vault, *, after: str = sealed.FIRST
) -> tuple[str | None, list[UnusableSecret]]:
    """Return the secrets of a page of receivers, and where the next page begins or None."""
    rows = sealed.page(connection, after=after)
    return _next(rows), [secret for row in rows for secret in _secrets(row, vault)]


def reseal(connection: Connection, vault: Vault, *, after: str = sealed.FIRST) -> RotationPage:
    """Seal what a page of receivers has sealed with another key than the first again, and headers without an origin.

    It can be repeated, broken off and begun anew: what is sealed with the first key already is left as it is. A secret
    that is changed meanwhile is sealed with the first key of whoever changes it.
    """
    rows = sealed.page(connection, after=after)
    resealed, faults = 0, []
    for row in rows:
        for (column, token), secret in zip(row.tokens, _secrets(row, vault), strict=True):
            if secret.fault is not None:
                faults.append(secret)
            elif (new := _renewed(row, column, token, secret, vault)) is not None:
                resealed += sealed.replace(connection, row.id, column, old=token, new=new)
    return RotationPage(_next(rows), resealed, tuple(faults))


def unusable_secrets(connection: Connection, vault_keys: Sequence[str]) -> str | None:
    """Say in a sentence why a worker with these master keys cannot serve the receivers of its database, or None.

    It can while some of a sample opens: one damaged row must not keep all workers from starting.
    """
    if not sealed.any_sealed(connection):
        return None
    try:
        vault = Vault(vault_keys)
    except BadMasterKeys as error:
        return f"the database has receivers of webhooks, but {error}"
    secrets = [secret for row in sealed.page(connection, limit=SAMPLE) for secret in _secrets(row, vault)]
    if not secrets or any(secret.fault is None for secret in secrets):
        return None
    return (
        f"no key of {SETTING} ({', '.join(vault.key_ids)}) opens the secrets of receivers in the database; add the key "
        "they were sealed with, and look with: afterword secrets check"
    )


def _secrets(row: SealedRow, vault: Vault) -> Iterator[UnusableSecret]:
    whose = f"{row.tenant}/{row.name}"
    for column, token in row.tokens:
        kind = KINDS[column]
        try:
            vault.open(row.id, kind, token)
            if column == "headers_sealed":
                sealed_fields.headers_of(vault, row.id, token, url=_url(row, vault))
        except CannotOpen as error:
            yield UnusableSecret(whose, kind, None, str(error))
        else:
            yield UnusableSecret(whose, kind, vault.sealed_with(token), None)


def _renewed(row: SealedRow, column: str, token: str, secret: UnusableSecret, vault: Vault) -> str | None:
    """Return the token that takes the place of `token`, None where it stays."""
    if column == "headers_sealed" and (bound := sealed_fields.bind_headers(vault, row.id, token, url=_url(row, vault))):
        return bound
    return vault.rotate(token) if secret.key_id != vault.key_ids[0] else None


def _url(row: SealedRow, vault: Vault) -> str:
    return sealed_fields.url_of(vault, row.id, row.url, dict(row.tokens).get("url_sealed"))


def _next(rows: Sequence[SealedRow]) -> str | None:
    return rows[-1].id if len(rows) == sealed.PAGE else None
