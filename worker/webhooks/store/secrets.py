"""The sealed columns of receivers, a page of rows at a time, for those who check and reseal them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import Connection, exists, or_, select, update

from worker.webhooks.store.tables import receivers

COLUMNS: Final = ("url_sealed", "headers_sealed", "keys_sealed")
PAGE: Final = 200
FIRST: Final = "00000000-0000-0000-0000-000000000000"


class SealedRow(NamedTuple):
    """What is sealed of a receiver: column and token. `url` is its shown address."""

    id: str
    tenant: str
    name: str
    url: str
    tokens: tuple[tuple[str, str], ...]


_SOME = or_(*(receivers.c[column].is_not(None) for column in COLUMNS))


def page(connection: Connection, *, after: str = FIRST, limit: int = PAGE) -> list[SealedRow]:
    """Return receivers with something sealed, in the order of their ids."""
    columns = (receivers.c[name] for name in ("id", "tenant", "name", "url", *COLUMNS))
    rows = connection.execute(
        select(*columns).where(receivers.c.id > after, _SOME).order_by(receivers.c.id).limit(limit)
    )
    return [SealedRow(row.id, row.tenant, row.name, row.url, _tokens(row._asdict())) for row in rows]


def replace(connection: Connection, receiver_id: str, column: str, *, old: str, new: str) -> bool:
    """Put a token in the place of another; False when the column holds a third one by now."""
    mine = (receivers.c.id == receiver_id, receivers.c[column] == old)
    return connection.execute(update(receivers).where(*mine).values({column: new})).rowcount == 1


def any_sealed(connection: Connection) -> bool:
    """Say whether anything is sealed. A receiver that jobs have only named, or brought the address of, has nothing."""
    return bool(connection.execute(select(exists().where(receivers.c.status != "removed", _SOME))).scalar())


def _tokens(row: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((column, token) for column in COLUMNS if (token := row[column]) is not None)


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """Keys for a receiver that has none yet, sealed, and the public one of them; its address as it shall be kept."""

    receiver_id: str
    sealed: str = field(repr=False)
    public_key: str | None
    url: str = field(repr=False)
    url_sealed: str | None = field(repr=False)


def store_first_keys(connection: Connection, items: Sequence[FirstKeys]) -> list[str]:
    """Give each receiver its keys unless another worker was first; return the sealed keys that stand.

    Its address is kept without the query from now on, which is sealed.
    """
    for one in sorted(items, key=lambda one: one.receiver_id):
        mine = receivers.c.id == one.receiver_id
        none_yet = update(receivers).where(mine, receivers.c.keys_sealed.is_(None))
        connection.execute(none_yet.values(keys_sealed=one.sealed, public_key=one.public_key))
        if one.url_sealed is not None:
            # An address that somebody has given it meanwhile is sealed already, or has no query.
            open_yet = update(receivers).where(mine, receivers.c.url_sealed.is_(None), receivers.c.url.like("%?%"))
            connection.execute(open_yet.values(url=one.url, url_sealed=one.url_sealed))
    found = select(receivers.c.id, receivers.c.keys_sealed).where(
        receivers.c.id.in_(sorted({one.receiver_id for one in items}))
    )
    standing = {row.id: row.keys_sealed for row in connection.execute(found)}
    return [standing[one.receiver_id] for one in items]
