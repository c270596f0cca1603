"""The pytest plugin of `ops/test --fast`: keeps the tests that need no Redis, no PostgreSQL and no other process.

Its place and its fixtures decide about a test. A test that runs on both databases is kept on SQLite.
"""

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
# Folders with all that is below them.
FOLDERS: Final = ("core", "chat", "contracts", "settings", "jobs/core", "webhooks/core")
# Folders of which only the modules themselves count.
FLAT_FOLDERS: Final = (".", "jobs", "webhooks")
FILES: Final = (
    *("queue/test_envelope.py", "queue/test_window_size.py", "net/test_http1.py", "net/test_redaction.py"),
    *("webhooks/net/test_address_policy.py", "webhooks/net/test_url.py"),
)
# They build wheels or install packages.
SLOW: Final = ("test_wheel.py", "test_public_names.py")
SERVERS: Final = {"redis_server", "postgres_url", "postgresql_url"}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_module and not has_fast_tests(collection_path.relative_to(TESTS)) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    dropped = [item for item in items if needs_server(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not needs_server(item)]


def has_fast_tests(module: Path) -> bool:
    is_in_folder = any(module.is_relative_to(folder) for folder in FOLDERS)
    is_listed = module.parent.as_posix() in FLAT_FOLDERS or module.as_posix() in FILES
    return (is_in_folder or is_listed) and module.as_posix() not in SLOW


def needs_server(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    databases = parameters.params.values() if parameters is not None else ()
    return "postgresql" in databases or not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))
