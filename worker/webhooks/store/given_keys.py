"""What a receiver that a job's address made gets with its first delivery: keys, and its address sealed; once only.

The worker that ends a job writes such a receiver in the transaction of the end, where nothing is known of master keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, update

from worker.webhooks.store.tables import receivers


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Keys for a receiver that has none yet, sealed, and the public one of them; its address as it shall be kept."""

    receiver_id: str
    sealed: str = field(repr=False)
    public_key: str | None
    url: str = field(repr=False)
    url_sealed: str | None = field(repr=False)


def give_keys(connection: Connection, items: Sequence[NewKeys]) -> list[str]:
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
