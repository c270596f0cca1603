"""The SQL contract: the files equal the views of the migrations, and sql/README.md lists their columns and types."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from tests.producers.made import ROOT
from worker.chat.usage import TOKENS
from worker.store.engine import open_engine

SQL = ROOT / "api_contracts" / "sql"

# The columns of the first release. The views may have more.
PROMISED = {
    "submit_v1": "id job",
    "jobs_v1": (
        "id tenant status batch custom_id idempotency_key endpoint model priority attempts max_attempts created_at "
        "not_before deadline started_at finished_at waiting_for waiting_until finish_reason content reasoning_content "
        "refusal tool_calls response response_id response_model system_fingerprint error_code error_message error "
        "TOKENS usage reported_cost metadata request cursor"
    ),
    "job_ids_v1": "id job_id outcome",
    "attempts_v1": (
        "job_id attempt tenant endpoint model sent_at first_byte_at first_token_at finished_at outcome error_code "
        "error_message http_status billed request_id retry_after_s worker partial "
        "TOKENS usage usage_source usage_flags reported_cost"
    ),
    "usage_v1": "tenant batch endpoint model metadata day TOKENS",
}
SHORT = {"character varying": "text", "timestamp with time zone": "timestamptz"}


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_views", SQL / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dictionary() -> dict[str, list[tuple[str, str]]]:
    """Return the (column, type) pairs of each view in README.md."""
    found: dict[str, list[tuple[str, str]]] = {}
    for chapter in re.split(r"^## ", (SQL / "README.md").read_text(), flags=re.MULTILINE)[1:]:
        rows = [line.split(" | ") for line in chapter.splitlines() if line.startswith("| `")]
        assert all(len(row) == 4 for row in rows), rows
        found[chapter.split("\n")[0]] = [(row[0].strip("| `"), row[1]) for row in rows]
    # The chapter of finished_v1 has no table: its columns are those of jobs_v1.
    return found | {"finished_v1": found["jobs_v1"]}


DICTIONARY = dictionary()


def columns(engine: Engine, view: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT * FROM {view}")).keys())


def test_the_files_hold_the_views_that_the_migrations_create() -> None:
    on_disk = {path: path.read_text() for path in SQL.glob("*/*.sql")}

    assert on_disk == writer().texts(), "run: python api_contracts/sql/write.py"


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_every_view_has_a_file_and_a_chapter(dialect: str) -> None:
    assert {path.stem for path in (SQL / dialect).glob("*.sql")} == set(DICTIONARY)


@pytest.mark.parametrize("view", sorted(DICTIONARY))
def test_the_dictionary_lists_the_columns_of_the_view(view: str, engine: Engine) -> None:
    assert [name for name, _ in DICTIONARY[view]] == columns(engine, view)


@pytest.mark.parametrize("view", sorted(DICTIONARY))
def test_the_dictionary_names_the_types_of_the_view(view: str, postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    types = text(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
        "WHERE attrelid = CAST(:view AS regclass) AND attnum > 0 ORDER BY attnum"
    )
    with engine.connect() as connection:
        found = [(name, SHORT.get(kind, kind)) for name, kind in connection.execute(types, {"view": view})]
    engine.dispose()

    assert DICTIONARY[view] == found


@pytest.mark.parametrize("view", sorted(PROMISED))
def test_the_views_show_every_promised_column(view: str, engine: Engine) -> None:
    promised = PROMISED[view].replace("TOKENS", " ".join(TOKENS)).split()

    assert [name for name in columns(engine, view) if name in promised] == promised


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_the_files_alone_say_what_a_view_is(dialect: str) -> None:
    for path in Path(SQL / dialect).glob("*.sql"):
        assert re.match(rf"CREATE VIEW {path.stem} \(", path.read_text())
