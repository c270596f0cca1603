"""No test module imports from another test module: helpers live in modules of their own."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = sorted(TESTS.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports: `tests.store.made.entry`."""
    package = path.relative_to(TESTS.parent).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = [*above, node.module] if node.module else above
            names |= {".".join([*source, alias.name]) for alias in node.names}
    return names


def is_in_test_module(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "tests" and any(
        part.startswith("test_") and TESTS.parent.joinpath(*parts[:place], f"{part}.py").exists()
        for place, part in enumerate(parts)
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_module_imports_nothing_from_a_test_module(path: Path) -> None:
    assert [name for name in sorted(imports(path)) if is_in_test_module(name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.test_layers import MODULES",
        "from tests import test_layers",
        "import tests.jobs.store.test_orders",
        "from .test_layers import MODULES",
        "from . import test_layers",
    ],
)
def test_each_form_of_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    module = tmp_path / "tests" / "sample.py"
    module.parent.mkdir()
    module.write_text(line, encoding="utf-8")
    for name in ("tests/test_layers.py", "tests/jobs/store/test_orders.py"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    monkeypatch.setattr(f"{__name__}.TESTS", module.parent)

    assert [name for name in imports(module) if is_in_test_module(name)] != []
