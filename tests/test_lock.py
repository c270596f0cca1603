"""The lock files fit the ranges of pyproject.toml on every supported Python and platform. ops/lock renews them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
# The ranges that each file must meet.
RANGES = {
    "worker": PROJECT["project"]["dependencies"],
    "embedded": EXTRAS["embedded"],
    "dev": [*PROJECT["project"]["dependencies"], *EXTRAS["embedded"], *EXTRAS["dev"]],
    "build": PROJECT["build-system"]["requires"],
}
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
PLACES = [
    {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.7",
        "sys_platform": system,
        "platform_machine": machine,
    }
    for python in ("3.11", "3.12", "3.13")
    for system, machine in PLATFORMS
]


def place_name(place: dict[str, str]) -> str:
    return f"{place['python_version']}-{place['sys_platform']}-{place['platform_machine']}"


def text_of(file: str) -> str:
    return (ROOT / "ops" / "requirements" / f"{file}.txt").read_text(encoding="utf-8")


def pins(file: str, place: dict[str, str]) -> dict[str, str]:
    """Return the version of each package that a lock file installs in a place."""
    found: dict[str, str] = {}
    for line in re.findall(r"^[^#\s].*", text_of(file), re.MULTILINE):
        requirement = Requirement(line.removesuffix("\\"))
        if requirement.marker is None or requirement.marker.evaluate(place):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{file}.txt has two versions of {name} for {place_name(place)}"
            (exact,) = requirement.specifier
            assert exact.operator == "==", line
            found[name] = exact.version
    return found


@pytest.mark.parametrize("file", RANGES)
@pytest.mark.parametrize("place", PLACES, ids=place_name)
def test_a_lock_file_fits_the_ranges(file: str, place: dict[str, str]) -> None:
    locked = pins(file, place)
    for line in RANGES[file]:
        requirement = Requirement(line)
        is_ours = requirement.name == PROJECT["project"]["name"]
        if is_ours or (requirement.marker is not None and not requirement.marker.evaluate(place)):
            continue
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{file}.txt has no {requirement.name}; run ops/lock"
        assert version in requirement.specifier, f"{file}.txt has {requirement.name} {version}; run ops/lock"


@pytest.mark.parametrize("place", PLACES, ids=place_name)
def test_every_lock_file_has_the_versions_that_the_tests_run_with(place: dict[str, str]) -> None:
    tested = pins("dev", place)
    for file in ("worker", "embedded", "build"):
        assert pins(file, place).items() <= tested.items(), f"run ops/lock: {file}.txt differs from dev.txt"


@pytest.mark.parametrize("file", RANGES)
def test_a_lock_file_has_a_hash_for_each_line_and_names_no_server(file: str) -> None:
    text = text_of(file)
    entries = re.split(r"^(?=[^#\s])", text, flags=re.MULTILINE)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text and "--index-url" not in text and "--find-links" not in text
