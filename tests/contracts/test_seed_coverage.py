"""seed_coverage.md has a row for each field of the endpoint's document, and everything that it names exists."""

import re
from pathlib import Path

import pytest

from tests.contracts.schemas import CONTRACTS, load, schema
from worker.store import migrate
from worker.store.engine import open_engine

ROOT = Path(__file__).parents[2]
REQUEST_FIELDS = [
    *("model", "messages", "temperature", "top_p", "n", "stream", "stream_options", "stop", "max_tokens"),
    *("max_completion_tokens", "presence_penalty", "frequency_penalty", "logit_bias", "user", "tools", "tool_choice"),
    *("response_format", "seed", "reasoning_effort", "modalities", "audio"),
]


def rows(section):
    page = (CONTRACTS / "seed_coverage.md").read_text()
    table = page.split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines() if "`" in line]
    assert all(len(row) == 5 for row in cells)
    return cells


REQUEST, RESPONSE = rows("Request"), rows("Response")


def paths_of(value, path=""):
    """List the path of every member of a value: `choices[].index`."""
    if isinstance(value, list):
        return [each for element in value for each in paths_of(element, f"{path}[]")]
    if not isinstance(value, dict):
        return []
    found = []
    for name, inner in value.items():
        here = f"{path}.{name}".lstrip(".")
        found += [here, *paths_of(inner, here)]
    return found


def at(value, path):
    for part in re.findall(r"[^.\[\]]+|\[\]", path):
        value = value[0] if part == "[]" else value[part]
    return value


@pytest.fixture(scope="module")
def jobs_columns(tmp_path_factory):
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('coverage') / 'jobs.db'}")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        yield set(connection.exec_driver_sql("SELECT * FROM jobs_v1 LIMIT 0").keys())
    engine.dispose()


def test_each_request_field_of_the_document_has_a_row():
    assert [row[0] for row in REQUEST] == REQUEST_FIELDS


def test_each_response_field_of_the_document_has_a_row():
    document = load(CONTRACTS / "examples" / "responses" / "document.json")
    assert [row[0] for row in RESPONSE] == paths_of(document)


@pytest.mark.parametrize(("name", "table"), [("chat_request", REQUEST), ("chat_completion", RESPONSE)])
def test_each_schema_path_exists(name, table):
    for row in table:
        place = schema(name)
        for step in row[1].split("/"):
            place = place[step]


def test_each_column_exists(jobs_columns):
    assert {row[2] for row in REQUEST + RESPONSE} <= {f"jobs_v1.{column}" for column in jobs_columns}


@pytest.mark.parametrize("row", REQUEST + RESPONSE, ids=lambda row: row[0])
def test_each_example_shows_its_field(row):
    example = load(CONTRACTS / "examples" / row[3])
    value = at(example["request"] if row[3].startswith("requests/") else example, row[0])
    assert value is not None


@pytest.mark.parametrize("name", sorted({row[4] for row in REQUEST + RESPONSE}))
def test_each_test_exists(name):
    file, test = name.split("::")
    assert f"def {test}(" in (ROOT / file).read_text()
