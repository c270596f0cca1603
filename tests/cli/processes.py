"""The command as a process, always stopped by its process id."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from worker.settings import child_environment

COMMAND = [sys.executable, "-u", "-m", "worker.cli"]


@contextlib.contextmanager
def afterword_process(
    *arguments: str, folder: Path, settings: dict[str, str] | None = None
) -> "Iterator[subprocess.Popen[str]]":
    """Start `afterword …` in a folder, with its output in the file `out`; kill it at the end if it still runs."""
    with (folder / "out").open("wb") as out:
        child = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=child_environment({"TMPDIR": str(folder), **(settings or {})}),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            # A suite in the background of a shell ignores SIGINT, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def await_output(child: "subprocess.Popen[str]", folder: Path, text: str, *, within_s: float = 60) -> str:
    """Return the output once it contains `text`; fail if the process ends or the time is over first."""

    def there() -> bool:
        return text in (folder / "out").read_text()

    await_true(lambda: there() or child.poll() is not None, within_s=within_s)
    output = (folder / "out").read_text()
    assert text in output, output
    return output


def await_true(true: Callable[[], bool], *, within_s: float = 60) -> None:
    """Return when the condition is true; fail after `within_s` seconds."""
    give_up = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up, "the condition was not true in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Return whether a process with this id exists and is no zombie."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def children(pid: int) -> set[int]:
    """Return the ids of a process's children, grandchildren and so on."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    direct = {int(one) for path in listed for one in path.read_text().split()}
    return direct.union(*(children(one) for one in direct))
