"""The layers: imports go down the floors of worker/__init__.py, and each library stays in its folder."""

import ast
import re
import sys
from pathlib import Path
from typing import Final

import pytest

import worker

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "worker"
MODULES = sorted(WORKER.rglob("*.py"))
# From the ground up. An import goes to a lower floor, or stays in its room.
FLOORS: Final = [
    "core pool",
    "chat queue net settings",
    "store log celeryconfig",
    "webhooks",
    "jobs",
    "run deliver",
    "process verify dev",
    "app",
    "cli celery",
]
FLOOR: Final = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms.split()}
# Inside a wing: `core` is the ground, `store` and `net` know it and not each other, the wing's services know all three.
WINGS: Final = ("jobs", "webhooks")
WING_FLOOR: Final = {"core": 1, "store": 2, "net": 2}
CELERY: Final = ("celery", "kombu", "billiard", "vine", "amqp")
# A library may be imported below a folder of this name, or in this module; both by path.
PACKAGES: Final = {
    **dict.fromkeys(CELERY, ("queue", "pool", "app.py", "celery.py", "celeryconfig.py")),
    "httpx": ("net",),
    "aiohttp": ("net", "dev"),
    "alembic": ("store",),
    "cryptography": ("webhooks/vault.py",),
    "redis": ("queue",),
    "sqlalchemy": ("store", "verify"),
}
# The modules outside these folders, each with its reason.
SERVICES: Final = {
    "jobs/dispatcher.py": "opens the transactions of a tick, pushes nudges",
    "jobs/endpoint_monitor.py": "opens the transactions that pause endpoints",
    "jobs/endpoint_probes.py": "opens the transactions that choose probes, pushes their nudges",
    "jobs/fair_share.py": "reads lanes inside the dispatcher's transaction",
    "jobs/inbox_watch.py": "asks the inbox of SQL for rows",
    "jobs/intake.py": "opens the transactions that accept entries, removes them from Redis",
    "jobs/intake_list.py": "takes entries from the list chat.intake",
    "jobs/maintenance.py": "opens the transactions of the leader's tasks, reads rejected nudges",
    "process/schema_watch.py": "asks the database for its migration",
    "process/startup_checks.py": "asks the database and Redis once",
    "webhooks/dispatcher.py": "opens the transactions of a tick, pushes nudges",
    "webhooks/key_rotation.py": "opens the transactions that seal secrets again",
    "webhooks/service.py": "opens the parts of a process for webhooks",
    "cli/support/database.py": "opens the engine of a command",
    "cli/support/job_filter.py": "reads the database's time in a transaction",
    "cli/support/dead_letter_requeue.py": "puts dead letters back into Redis",
    "cli/support/output.py": "prints rows",
    "cli/dead_letters.py": "reads and deletes dead letters",
    "cli/demo_run.py": "sends the demo's jobs through Celery as a producer does",
    "cli/doctor_checks.py": "asks Redis for the lengths of its lists",
    "cli/doctor_webhooks.py": "reads the figures of webhooks",
    "cli/inspect.py": "names the errors of Celery's inspection",
    "cli/webhooks/deliveries.py": "opens the transactions of its commands",
    "cli/webhooks/receiver_lookup.py": "reads receivers",
    "cli/webhooks/recoveries.py": "opens the transactions of its commands",
}
# Nouns with the ending of a participle.
NOUNS: Final = {"encoding", "feed", "listing", "ordering", "reasoning"}
LONG: Final = {"store/tables.py": "one table after another; splitting it would hide the schema"}


def imports(path: Path) -> set[str]:
    """Return the full names of what a module imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(WORKER).as_posix()


def room(module: str) -> str:
    """Return the room of a full module name: the folder or module directly below worker."""
    return module.split(".")[1]


def module_of(path: Path) -> str:
    return ".".join(("worker", *path.relative_to(WORKER).with_suffix("").parts)).removesuffix(".__init__")


NAMES: Final = {module_of(path) for path in MODULES}


# A package without code of its own: an import from it names one of its modules.
FOLDERS: Final = {module_of(path) for path in MODULES if path.name == "__init__.py"} - {
    "worker.settings",
    "worker.cli",
    "worker.cli.webhooks",
}


def inner_imports(path: Path) -> set[str]:
    """Return the modules of worker that a module imports."""
    return {target for target in imports(path) if target in NAMES - FOLDERS}


def test_the_map_in_worker_has_these_floors() -> None:
    listed = re.findall(r"^    (\d)  (\w+) ", worker.__doc__ or "", re.M)
    assert {room: int(number) for number, room in listed} == FLOOR
    rooms = {room(module_of(path)) for path in MODULES if module_of(path) != "worker"}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_import_goes_down_or_stays_in_its_room(path: Path) -> None:
    if module_of(path) == "worker":
        assert not inner_imports(path)
        return
    here = room(module_of(path))
    for target in inner_imports(path):
        there = room(target)
        assert here == there or FLOOR[there] < FLOOR[here], f"{name(path)} imports {target}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.relative_to(WORKER).parts[0] in WINGS], ids=name)
def test_inside_a_wing_the_rules_lie_below_sql_and_wire_and_these_below_the_services(path: Path) -> None:
    wing, here = path.relative_to(WORKER).parts[0], path.parent.name
    for target in inner_imports(path):
        parts = target.split(".")
        if here in WING_FLOOR and parts[1] == wing:
            there = parts[2] if len(parts) > 3 else "service"
            assert here == there or WING_FLOOR.get(there, 3) < WING_FLOOR[here], f"{name(path)} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_libraries_stay_in_their_folders(path: Path) -> None:
    used = {target.split(".")[0] for target in imports(path)}
    for library in used & PACKAGES.keys():
        allowed = any(place in name(path).split("/") or name(path) == place for place in PACKAGES[library])
        assert allowed or name(path) in SERVICES, f"{name(path)} imports {library}; only {PACKAGES[library]} may"


@pytest.mark.parametrize("module", SERVICES)
def test_a_module_named_as_a_service_needs_its_exception(module: str) -> None:
    used = {target.split(".")[0] for target in imports(WORKER / module)}
    outside = [
        library
        for library in used & PACKAGES.keys()
        if not any(place in module.split("/") or module == place for place in PACKAGES[library])
    ]
    assert outside, f"{module} needs no exception"


@pytest.mark.parametrize("path", [path for path in MODULES if {"core", "chat"} & set(path.parts[:-1])], ids=name)
def test_core_is_pure(path: Path) -> None:
    for target in imports(path):
        first = target.split(".")[0]
        # No I/O, no clock, no chance.
        assert first not in {"time", "random", "secrets", "socket", "asyncio", "threading", "os", "pathlib"}, target
        assert first in sys.stdlib_module_names or target == "worker" or first == "worker", target
        if first == "worker" and target != "worker":
            assert {"core", "chat"} & set(target.split(".")) or target in FOLDERS, f"{name(path)}: {target}"


def test_no_two_public_classes_share_a_name() -> None:
    seen: dict[str, str] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in seen, f"{node.name} is a class of {seen[node.name]} and of {name(path)}"
                seen[node.name] = name(path)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_a_noun(path: Path) -> None:
    last = path.stem.split("_")[-1]
    assert not last.endswith(("ing", "ed")) or last in NOUNS, f"{name(path)} is a participle; name the thing"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_settings_reads_the_environment(path: Path) -> None:
    if path.relative_to(WORKER).parts[0] == "settings":
        return
    assert not imports(path) & {"os.environ", "os.getenv"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        assert not reads, f"{name(path)} reads the environment; settings.load() does that"


@pytest.mark.parametrize("path", [path for path in MODULES if "store" in path.parts[:-1]], ids=name)
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
    if path.relative_to(WORKER).parts[0] not in {"dev", "cli"}:
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


@pytest.mark.parametrize("path", [path for path in MODULES if path.relative_to(WORKER).parts[0] == "cli"], ids=name)
def test_commands_print_through_the_one_place_that_makes_text_printable(path: Path) -> None:
    allowed = {"output.py": 2, "wait.py": 1, "demo_run.py": 1}
    assert path.read_text(encoding="utf-8").count("click.echo(") == allowed.get(path.name, 0)
