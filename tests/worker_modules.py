"""The modules of `worker`, for tests that read source code."""

from pathlib import Path
from typing import Final

WORKER: Final = Path(__file__).parents[1] / "worker"
MODULES: Final = sorted(WORKER.rglob("*.py"))


def name(path: Path) -> str:
    """Return a module's path below `worker`: `jobs/store/claim.py`."""
    return path.relative_to(WORKER).as_posix()


def module_of(path: Path) -> str:
    """Return a module's full name: `worker.jobs.store.claim`."""
    return ".".join(("worker", *path.relative_to(WORKER).with_suffix("").parts)).removesuffix(".__init__")


def room(module: str) -> str:
    """Return the room of a full module name: the folder or module directly below `worker`."""
    return module.split(".")[1]
