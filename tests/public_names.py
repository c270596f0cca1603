"""Collects the public names of a tree: views, tables, commands, settings, error codes, log events, the Python API …

    python -m tests.public_names             prints the names of this checkout as JSON
    python -m tests.public_names --write     adds the new names to tests/data/public_names.json; refuses a removal
    python -m tests.public_names TREE        prints the names of another tree: a checkout or an unpacked wheel

The collector imports public entrances only: the command `afterword`, `worker.app:app`, `worker.settings` and the
package `afterword`. It reads everything else from the syntax of worker/, because modules may move.
"""

import ast
import importlib
import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SNAPSHOT: Final = Path(__file__).parent / "data" / "public_names.json"
Names = dict[str, dict[str, list[str]]]

# Columns and fields with a closed list of words: some of the words, by which their StrEnum in worker/ is found.
ENUMERATIONS: Final = {
    "jobs_v1.status": ("queued", "expired"),
    "jobs_v1.error_code": ("stream_truncated",),
    "attempts_v1.outcome": ("released", "expired"),
    "webhook_deliveries_v1.status": ("queued", "delivered"),
    "webhook_deliveries_v1.last_error_code": ("target_forbidden",),
    "afterword_delivery_attempts.outcome": ("released", "delivered"),
    "webhook event types": ("job.completed",),
    "receiver payload": ("thin", "auto"),
    "receiver disabled_reason": ("gone", "failing"),
    "header webhook-delivery": ("abort-message",),
    "endpoint state": ("open", "slow"),
    "endpoint cause": ("trouble", "operator"),
}
# Words without a StrEnum: each must be a string in worker/ or in a migration.
WORDS: Final = {
    "jobs_v1.waiting_for": ("start", "slot", "retry", "endpoint_paused", "limit"),
    "webhook_deliveries_v1.waiting_for": ("retry", "order"),
    "job_ids_v1.outcome": ("accepted", "duplicate", "conflict"),
    "attempts_v1.billed": ("yes", "no", "unknown"),
    "dead letter reasons": (
        "bad_arguments", "id_conflict", "id_not_uuid", "no_body", "no_id", "no_task", "not_accepted", "not_an_array",
        "not_an_object", "not_json", "too_deep", "too_large", "unknown_task", "unreadable",
    ),
}  # fmt: skip
LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT: Final = re.compile(r"[a-z_*]+\.[a-z_*]+")


def collect(tree: Path) -> Names:
    """Return the names of `tree`, by kind and owner: {"views": {"cancel_v1": ["id"], …}, …}.

    A child process imports the packages of `tree`, because this process may have imported another release.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("AFTERWORD_", "OPEAI_"))}
        path = os.pathsep.join([str(tree), str(tree / "api_contracts" / "python")])
        done = subprocess.run(
            # -P: the folders beside this file must not hide modules of the standard library.
            [sys.executable, "-P", __file__, "--here", str(tree)],
            env=kept | {"PYTHONPATH": path, "AFTERWORD_DATABASE_URL": f"sqlite:///{folder}/names.db"},
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the names of {tree} cannot be collected:\n{done.stdout}{done.stderr}")
    names: Names = json.loads(done.stdout)
    return names


def missing(before: Names, now: Names) -> list[str]:
    """Return a sentence for each name of `before` that is not in `now`."""
    found: list[str] = []
    for kind, owners in before.items():
        for owner, names in owners.items():
            left = now.get(kind, {}).get(owner)
            if left is None:
                found.append(f"{kind}: {owner!r} is gone")
            else:
                found += [f"{kind}: {owner!r} has lost {name!r}" for name in names if name not in left]
    return found


def _collect_here(tree: Path) -> Names:
    modules = _parsed(tree / "worker")
    contracts = next(path for path in (tree / "api_contracts", tree / "worker" / "api_contracts") if path.is_dir())
    return {
        "commands": _commands(list(_snapshot().get("commands", {}))),
        **_database(),
        "settings": _settings(),
        "celery": _celery(modules),
        "words": _words(modules, _strings(modules + _parsed(tree / "migrations"))),
        "log events": _log_events(modules),
        "python": _python(),
        "contracts": _contracts(contracts),
    }


def _snapshot() -> Names:
    names: Names = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.is_file() else {}
    return names


def _parsed(folder: Path) -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))]


def _commands(known: list[str]) -> dict[str, list[str]]:
    """Return every command's options: "--limit=" takes a value, "--format=json" takes `json`, "<1>" is an argument.

    A group need not list its hidden commands, so the commands in `known` are looked up by name too.
    """
    import click

    main = importlib.import_module("worker.cli").main
    context = click.Context(main)
    found: dict[str, list[str]] = {}
    todo = [("afterword", main)]
    while todo:
        path, command = todo.pop()
        found[path] = _parameters(command)
        if isinstance(command, click.Group):
            hidden = {name.split()[-1] for name in known if name.rpartition(" ")[0] == path}
            for name in sorted({*command.list_commands(context), *hidden}):
                inner = command.get_command(context, name)
                if inner is not None:
                    todo.append((f"{path} {name}", inner))
    return found


def _parameters(command: Any) -> list[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    found = [f"<{place}>" for place, _ in enumerate(arguments, start=1)]
    for option in (parameter for parameter in command.params if parameter not in arguments):
        for name in (*option.opts, *option.secondary_opts):
            found.append(name if option.is_flag or option.count else f"{name}=")
            found += [f"{name}={getattr(word, 'value', word)}" for word in getattr(option.type, "choices", ())]
    return found


def _database() -> dict[str, dict[str, list[str]]]:
    """Return the columns of the views and tables that `afterword db upgrade` makes, on SQLite."""
    main = importlib.import_module("worker.cli").main
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        main(["db", "upgrade"], standalone_mode=False)
    finally:
        sys.stdout = stdout
    path = os.environ["AFTERWORD_DATABASE_URL"].removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    found: dict[str, dict[str, list[str]]] = {"views": {}, "tables": {}}
    for name, kind in connection.execute("SELECT name, type FROM sqlite_master ORDER BY name").fetchall():
        if kind in {"view", "table"} and not name.startswith("sqlite_"):
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            found[f"{kind}s"][name] = [column[1] for column in columns]
    connection.close()
    return found


def _settings() -> dict[str, list[str]]:
    fields = importlib.import_module("worker.settings.endpoints").FIELDS
    return {
        "environment": sorted({*importlib.import_module("worker.settings").known_names(), "OPEAI_API_KEY"}),
        "[endpoints.NAME] of AFTERWORD_CONFIG": sorted({*fields, "key_file", "key_env", "headers"} - {"key"}),
    }


def _celery(modules: list[ast.Module]) -> dict[str, list[str]]:
    app = importlib.import_module("worker.app").app
    own = [name for name in app.tasks if not name.startswith("celery.")]
    # Celery does not know chat.submit: the intake reads these messages itself.
    return {
        "tasks": sorted({*own, *_strings(modules) & {"chat.submit"}}),
        "queues": sorted(queue.name for queue in app.conf.task_queues),
    }


def _words(modules: list[ast.Module], strings: set[str]) -> dict[str, list[str]]:
    enumerations = [set(words) for module in modules for words in _enumerations(module)]
    closed = {
        name: sorted(set().union(*(words for words in enumerations if words >= set(some))))
        for name, some in ENUMERATIONS.items()
    }
    return {**closed, **{name: [word for word in words if word in strings] for name, words in WORDS.items()}}


def _enumerations(module: ast.Module) -> Iterator[list[str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "StrEnum" for base in node.bases):
            values = [inner.value for inner in node.body if isinstance(inner, ast.Assign)]
            yield [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def _strings(modules: list[ast.Module]) -> set[str]:
    nodes = (node for module in modules for node in ast.walk(module))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _log_events(modules: list[ast.Module]) -> dict[str, list[str]]:
    """Return every log event with the keys that its call names; in an event's name `*` replaces an inserted word.

    A key that only a dictionary holds (`**facts`) is not found. "every line" has the keys that are bound to a context.
    """
    found: dict[str, set[str]] = {"every line": set()}
    for module in modules:
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            chosen = _chosen_levels(function)
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                called = getattr(call.func, "attr", getattr(call.func, "id", ""))
                keys = {keyword.arg for keyword in call.keywords if keyword.arg}
                event = _text(call.args[0]) if call.args else ""
                if called in {"bound_contextvars", "bind_contextvars"}:
                    found["every line"] |= keys
                elif EVENT.fullmatch(event) and called in LEVELS | chosen:
                    found.setdefault(event, set()).update(keys)
    return {event: sorted(keys) for event, keys in sorted(found.items())}


def _chosen_levels(function: ast.AST) -> set[str]:
    """Return the variables that hold a method of the logger: `line = log.info if … else log.warning`."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        and any(isinstance(part, ast.Attribute) and part.attr in LEVELS for part in ast.walk(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "*"


def _python() -> dict[str, list[str]]:
    """Return the package's functions and methods with their parameters, its classes with their members and bases."""
    package = importlib.import_module("afterword")
    found: dict[str, list[str]] = {"afterword": sorted(package.__all__)}
    for name in package.__all__:
        value = getattr(package, name)
        if not inspect.isclass(value):
            found[name] = _signature(value)
            continue
        bases = [f"({base.__name__})" for base in value.__mro__[1:] if base is not object]
        members = [member for member in vars(value) if not member.startswith("_")]
        found[name] = bases + sorted({*members, *getattr(value, "__annotations__", {})} - {"__slots__"})
        made = vars(value).get("__init__")
        methods = {member: vars(value)[member] for member in members if inspect.isfunction(vars(value)[member])}
        for method, function in {**methods, **({"__init__": made} if inspect.isfunction(made) else {})}.items():
            found[f"{name}.{method}"] = _signature(function)
    return found


def _signature(function: Any) -> list[str]:
    """Return the parameters without `self`: "name=" has a default, parameters after "*" are given by name."""
    found: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        found.append(f"{stars}{name}{'' if parameter.default is parameter.empty else '='}")
    return [name for name in found if name != "self"]


def _contracts(folder: Path) -> dict[str, list[str]]:
    """Return the files that other teams copy or link, the fields of jobs and requests and the members of each event."""
    kinds = {".json", ".yaml", ".sql", ".sse"}
    found = {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in kinds)}
    for name in ("job_message", "chat_request"):
        schema = json.loads((folder / f"{name}.schema.json").read_text(encoding="utf-8"))
        found[f"fields of a {name}"] = list(schema["properties"])
    for path in sorted((folder / "examples" / "events").glob("*.json")):
        event = json.loads(path.read_text(encoding="utf-8"))
        found[f"event of {path.name}"] = [*event, *(f"data.{name}" for name in event["data"])]
    return found


def main(*arguments: str) -> None:
    match arguments:
        case ("--here", tree):
            names = _collect_here(Path(tree))
        case ("--write",) | ():
            names = collect(ROOT)
        case (tree,):
            names = collect(Path(tree).resolve())
        case _:
            raise SystemExit(__doc__)
    text = json.dumps(names, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if arguments == ("--write",):
        if lost := missing(_snapshot(), names):
            raise SystemExit("not written, because public names are gone:\n" + "\n".join(lost))
        SNAPSHOT.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
