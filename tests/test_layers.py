"""The layers of the design, held: who may import what, and how long a module may be."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "worker"
MODULES = sorted(WORKER.rglob("*.py"))
CELERY = {"celery", "kombu", "billiard", "vine", "amqp"}
# Who may know whom; a folder's name stands for all of it.
ONLY = {
    **{name: {"app", "celery", "celeryconfig", "queue", "jobs", "pool", "cli", "dev"} for name in CELERY},
    "httpx": {"net", "jobs", "webhooks", "process", "cli", "dev"},
    "aiohttp": {"net", "jobs", "webhooks", "dev"},
    "sqlalchemy": {
        *(
            "store",
            "jobs",
            "webhooks",
            "verify",
            "process",
            "lease",
            "orphans",
            "schema_watch",
            "startup_checks",
            "cli",
        ),
    },
    "alembic": {"store"},
    "cryptography": {"webhooks"},
}
LONG = {"store/tables.py": "one table after another; splitting it would hide the schema"}


def imports(path: Path) -> set[str]:
    """Return the full names of what a module imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def place(path: Path) -> str:
    """Return the folder of a module below worker, or its own name."""
    first = path.relative_to(WORKER).parts[0]
    return first.removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(WORKER))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_foreign_packages_stay_in_their_rooms(path: Path) -> None:
    for foreign, rooms in ONLY.items():
        if any(one.split(".")[0] == foreign for one in imports(path)):
            assert place(path) in rooms, f"{name(path)} imports {foreign}; only {sorted(rooms)} may"


@pytest.mark.parametrize("path", [path for path in MODULES if place(path) == "core"], ids=name)
def test_core_is_the_standard_library_and_itself(path: Path) -> None:
    for one in imports(path):
        first = one.split(".")[0]
        assert first in sys.stdlib_module_names or one.startswith("worker.core") or one == "worker", one
        # No I/O, no clock, no chance.
        assert first not in {"time", "random", "secrets", "socket", "asyncio", "threading", "os", "pathlib"}, one


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_layers_point_one_way(path: Path) -> None:
    below = {
        "core": {"core"},
        "chat": {"chat", "core"},
        "net": {"net", "core", "webhooks"},
        "settings": {"settings", "core", "webhooks"},
        "store": {"store", "chat", "core"},
    }
    if place(path) not in below:
        return
    for one in imports(path):
        if one.startswith("worker.") and one.count("."):
            assert one.split(".")[1] in below[place(path)], f"{name(path)} imports {one}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_settings_reads_the_environment(path: Path) -> None:
    if place(path) == "settings":
        return
    assert not imports(path) & {"os.environ", "os.getenv"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        assert not reads, f"{name(path)} reads the environment; settings.load() does that"


@pytest.mark.parametrize("path", [path for path in MODULES if place(path) == "store"], ids=name)
def test_only_the_databases_clock_decides(path: Path) -> None:
    # The clocks of two machines differ; `store.clock` has the only one. A monotonic time is a duration.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"{name(path)} asks this machine for the time"
            asked = isinstance(node.value, ast.Name) and (node.value.id, node.attr) in {
                ("time", "time"),
                ("time", "time_ns"),
            }
            assert not asked, f"{name(path)} asks this machine for the time"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_production_never_imports_the_development_parts(path: Path) -> None:
    if place(path) not in {"dev", "cli"}:
        assert not any(one.startswith("worker.dev") for one in imports(path)), name(path)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert ast.get_docstring(tree), f"{name(path)} does not say what it is"
    assert lines <= 260 or name(path) in LONG, f"{name(path)} has {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{name(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", [path for path in MODULES if place(path) == "cli"], ids=name)
def test_commands_print_through_the_one_place_that_makes_text_printable(path: Path) -> None:
    allowed = {"output.py": 2, "jobs.py": 1, "demo.py": 1}
    assert path.read_text(encoding="utf-8").count("click.echo(") == allowed.get(path.name, 0)
