"""The keys of a receiver that a job's address made: given by its first delivery, by one worker only."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from worker.store.webhook_tables import receivers


class NewKeys(NamedTuple):
    """Keys for a receiver that has none yet, sealed, and the public one of them."""

    receiver_id: str
    sealed: str
    public_key: str | None


def give_keys(connection: Connection, items: Sequence[NewKeys]) -> list[str]:
    """Give each receiver its keys unless another worker was first; return the sealed keys that stand."""
    for one in sorted(items):
        none_yet = (receivers.c.id == one.receiver_id, receivers.c.keys_sealed.is_(None))
        connection.execute(update(receivers).where(*none_yet).values(keys_sealed=one.sealed, public_key=one.public_key))
    found = select(receivers.c.id, receivers.c.keys_sealed).where(
        receivers.c.id.in_(sorted({one.receiver_id for one in items}))
    )
    standing = {row.id: row.keys_sealed for row in connection.execute(found)}
    return [standing[one.receiver_id] for one in items]
