"""The page for other teams: its code blocks run in order against a real worker, and its tables are complete."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, text

from tests.pool.workers import until
from tests.producers.made import ROOT, one, read, rows
from worker.core.failure import MEANINGS, ErrorCode
from worker.core.lifecycle import FINAL, Status
from worker.dev.redis import find_server
from worker.dev.stack import Stack, running_stack
from worker.jobs.core.message import Job
from worker.queue.envelope import Envelope, decode
from worker.settings import Settings

PAGE = ROOT / "api_contracts" / "README.md"
CLIENT_PAGE = ROOT / "api_contracts" / "python" / "README.md"


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)]


class Reader:
    """Runs the code blocks of a page, with the URLs of the test's own Redis and database."""

    def __init__(self, stack: Stack, engine: Engine) -> None:
        self.engine = engine
        self.values: dict[str, Any] = {}
        self.addresses = {
            "redis://localhost:6379/0": stack.redis_url,
            "postgresql+psycopg://app@localhost/app": engine.url.render_as_string(hide_password=False),
            "postgresql://app@localhost/app": stack.database_url,
        }

    def type(self, block: Block) -> None:
        code = block.code
        for shown, real in self.addresses.items():
            code = code.replace(shown, real)
        {"python": self._python, "sql": self._sql, "sh": self._shell, "json": self._json}[block.language](code)

    def leave(self) -> None:
        """Close the connections that the page opened. A script would leave them open until its end."""
        for name, end in (("afterword", "close"), ("client", "close"), ("engine", "dispose")):
            if name in self.values:
                getattr(self.values[name], end)()

    def _python(self, code: str) -> None:
        exec(compile(code, "README.md", "exec"), self.values)

    def _sql(self, code: str) -> None:
        for statement in re.split(r";\n", code.strip() + "\n")[:-1]:
            given = {"id": self.values.get("job_id"), "batch": "greetings", "last": 0}
            asked = {name: given[name] for name in re.findall(r"(?<![:\w]):(\w+)", statement)}
            with self.engine.begin() as connection:
                found = connection.execute(text(statement), asked)
                assert not found.returns_rows or found.all(), statement

    def _shell(self, code: str) -> None:
        path = f"{Path(find_server()).parent}:{os.environ['PATH']}"
        for tool in ("redis-cli", "openssl"):
            if tool in code and shutil.which(tool, path=path) is None:
                pytest.skip(f"no {tool} on PATH or beside the Redis server")
        subprocess.run(["sh", "-e", "-c", code], env={"PATH": path}, check=True, stdout=subprocess.DEVNULL)

    def _json(self, code: str) -> None:
        job = read(code, default_id="5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6e")
        assert isinstance(job, Job), job


def finished(engine: Engine) -> int:
    return int(one(engine, "SELECT count(*) FROM jobs_v1 WHERE finished_at IS NOT NULL")[0])


@pytest.fixture
def reader(database_url: str, engine: Engine, tmp_path: Path) -> Iterator[Reader]:
    """A reader with its own worker, Redis and fake endpoint."""
    with running_stack(Stack(Settings(database_url=database_url), folder=tmp_path / "stack")) as stack:
        stack.start_worker()
        reader = Reader(stack, engine)
        yield reader
        reader.leave()


def test_every_block_runs_and_every_job_on_the_page_completes(reader: Reader) -> None:
    for block in blocks(PAGE):
        if block.language == "sql" and block.code.startswith("SELECT"):
            until(lambda: finished(reader.engine) >= 106, what="the end of every job on the page")
        reader.type(block)

    assert rows(reader.engine, "SELECT status, count(*) FROM jobs_v1 GROUP BY status") == [("completed", 107)]


def test_the_block_on_the_packages_page_runs(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(CLIENT_PAGE)

    reader.type(block)

    assert capsys.readouterr().out.startswith("completed You said: Say hello. ")


def test_the_page_lists_every_status() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \|$", PAGE.read_text(), re.MULTILINE)

    assert dict(listed) == {status.value: "yes" if status in FINAL else "no" for status in Status}


@pytest.mark.parametrize("code", list(ErrorCode))
def test_the_page_says_what_an_error_code_means(code: ErrorCode) -> None:
    fate = MEANINGS[code]
    again = "pause" if fate.trouble == "endpoint" else "yes" if fate.retryable else "no"

    assert f"\n| `{code}` | {fate.sentence} | {again} | {fate.billed} |\n" in PAGE.read_text()


def test_every_link_leads_somewhere() -> None:
    for page in (PAGE, CLIENT_PAGE):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


def test_the_full_redis_message_is_one_that_the_worker_reads() -> None:
    message = (ROOT / "api_contracts" / "examples" / "redis_message.json").read_bytes()

    envelope = decode(message)
    assert isinstance(envelope, Envelope)
    assert isinstance(read(envelope.arguments_text, default_id=envelope.id), Job)
    assert json.loads(message)["headers"]["task"] == "chat.submit"
