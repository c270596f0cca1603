"""Dead letters for the tests that list, move and delete them."""

from sqlalchemy import Engine

from worker.jobs.store.inbox import StoredEntry, write_dead_letters

ID = "0191d3c4-7f00-7000-8000-000000000001"


def buried(engine: Engine, *found: StoredEntry) -> None:
    with engine.begin() as connection:
        write_dead_letters(connection, found)


def letter(queue: str = "chat.intake", reason: str = "not_json", entry: bytes = b"\xff\x00") -> StoredEntry:
    return StoredEntry(queue, reason, "It is none.", entry, ID)
