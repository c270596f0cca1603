"""The modules of `worker`, for tests that read source code."""

from pathlib import Path

WORKER = Path(__file__).parents[1] / "worker"
MODULES = sorted(WORKER.rglob("*.py"))


def place(path: Path) -> str:
    """Return the folder of a module below `worker`, or the name of a module without a folder."""
    first = path.relative_to(WORKER).parts[0]
    return first.removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(WORKER))
