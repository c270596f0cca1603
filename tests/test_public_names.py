"""Public names only grow: users and scripts match views, columns, commands, options, settings, codes and log events."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from tests.public_names import ROOT, SNAPSHOT, Names, collect, missing
from tests.release_before import unpack_release

RENEW = "python -m tests.public_names --write"
COLUMNS = (
    "SELECT t.table_name, t.table_type, c.column_name FROM information_schema.tables t "
    "JOIN information_schema.columns c USING (table_schema, table_name) "
    "WHERE t.table_schema = 'public' ORDER BY t.table_name, c.ordinal_position"
)
# Names of the release before that are gone, each with its reason.
GONE = {
    "log events: 'control.unreadable' has lost 'exchange'": "a broken packet is now met before its exchange is known",
}


@pytest.fixture(scope="module")
def now() -> Names:
    return collect(ROOT)


@pytest.fixture(scope="module")
def snapshot() -> Names:
    names: Names = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return names


def test_every_name_of_the_snapshot_exists(snapshot: Names, now: Names) -> None:
    lost = missing(snapshot, now)
    assert not lost, "public names were removed; users and scripts match them, so put them back:\n" + "\n".join(lost)


def test_every_name_is_in_the_snapshot(snapshot: Names, now: Names) -> None:
    added = missing(now, snapshot)
    assert not added, f"{SNAPSHOT.name} lacks names that exist now; run `{RENEW}` in the same commit:\n" + "\n".join(
        f"new: {line}" for line in added
    )


@pytest.mark.xdist_group("release-before")
def test_every_name_of_the_release_before_exists(now: Names, tmp_path: Path) -> None:
    lost = set(missing(collect(unpack_release(tmp_path)), now))
    gone = sorted(lost - GONE.keys())
    assert not gone, "the release before had public names that are gone; put them back:\n" + "\n".join(gone)
    assert GONE.keys() <= lost, "these names exist again; delete them from GONE: " + ", ".join(GONE.keys() - lost)


def test_postgresql_has_the_same_views_and_tables(snapshot: Names, postgresql_url: str) -> None:
    engine: Engine = create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    found: dict[str, dict[str, list[str]]] = {"views": {}, "tables": {}}
    with engine.connect() as connection:
        for name, kind, column in connection.execute(text(COLUMNS)):
            found["views" if kind == "VIEW" else "tables"].setdefault(name, []).append(column)
    engine.dispose()
    assert found["views"] == snapshot["views"]
    assert {name: sorted(columns) for name, columns in found["tables"].items()} == {
        name: sorted(columns) for name, columns in snapshot["tables"].items()
    }


@pytest.mark.parametrize("kind", ["commands", "views", "tables", "settings", "celery", "words", "log events", "python"])
def test_a_removed_name_is_found(snapshot: Names, kind: str) -> None:
    owner = next(owner for owner, names in snapshot[kind].items() if names)
    without_owner = {**snapshot, kind: {name: names for name, names in snapshot[kind].items() if name != owner}}
    without_name = {**snapshot, kind: {**snapshot[kind], owner: snapshot[kind][owner][1:]}}
    assert missing(snapshot, without_owner) == [f"{kind}: {owner!r} is gone"]
    assert missing(snapshot, without_name) == [f"{kind}: {owner!r} has lost {snapshot[kind][owner][0]!r}"]
    assert missing(without_name, snapshot) == []
