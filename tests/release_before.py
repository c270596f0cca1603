"""The release before, from the wheel of its commit. It must work on today's schema."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.pool.workers import ROOT

# The version that people upgrade from: a tag, or the released commit. The next release sets its predecessor here.
COMMIT: Final = "e8ec868557a35ed1e78a17916252989f8acc70a8"
# Its newest migration, the number by which the database knows the release.
NUMBER: Final = "0007"


def unpack_release(folder: Path) -> Path:
    """Build the wheel of COMMIT and unpack it; return the folder with its packages.

    Skip the test without a full history: in an sdist or a shallow clone.
    """
    tree, wheels, packages = folder / "tree", folder / "wheels", folder / "packages"
    if not _has_history():
        pytest.skip("the release before cannot be built here: this is no clone with all its history")
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tree, filter="data")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(tree)]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = wheels.glob("afterword-*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(packages)
    return packages


def _has_history() -> bool:
    question = ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"]
    try:
        asked = subprocess.run(question, capture_output=True, text=True)
    except FileNotFoundError:
        return False  # git is not installed
    return asked.returncode == 0 and asked.stdout.strip() == "false"
