"""docker-compose.yml: its own promises, and its commands as plain processes on parts of this machine."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cli.conftest import Command
from tests.cli.processes import afterword_process, await_output, await_true
from worker.settings import known_names

ROOT = Path(__file__).parent.parent.parent
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def filled(text: str, environ: dict[str, str]) -> str:
    """Fill `${NAME:-default}` and `${NAME:?message}` as compose does."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if environ.get(name):
            return environ[name]
        assert kind == "-", f"{name}: {rest}"
        return rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


def environment(service: str, environ: dict[str, str]) -> dict[str, str]:
    return {name: filled(text, environ) for name, text in SERVICES[service]["environment"].items()}


def test_it_holds_one_of_each() -> None:
    assert set(SERVICES) == {"postgres", "redis", "migrate", "worker", "fake"}
    assert SERVICES["postgres"]["image"] == "postgres:17"
    assert SERVICES["redis"]["image"] == "redis:8"
    assert SERVICES["fake"]["profiles"] == ["fake"]


def test_redis_keeps_everything_and_evicts_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_no_port_is_opened_to_the_outside() -> None:
    assert not any("ports" in service for service in SERVICES.values())


def test_the_worker_waits_for_the_migration_and_may_drain() -> None:
    worker = SERVICES["worker"]
    assert worker["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert int(worker["stop_grace_period"].removesuffix("s")) > 30  # AFTERWORD_DRAIN_S


def test_every_setting_it_gives_is_one() -> None:
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert {name for name in given if name.startswith("AFTERWORD_")} <= set(known_names())


def test_an_endpoint_must_be_named() -> None:
    with pytest.raises(AssertionError, match="set it to your endpoint"):
        environment("worker", {})
    assert environment("worker", {"AFTERWORD_ENDPOINT_URL": "https://a"})["AFTERWORD_ENDPOINT_KEY"] == ""


def test_its_commands_run_as_plain_processes(
    tmp_path: Path, postgres_url: str, redis_url: str, afterword: Command
) -> None:
    folders = {name: tmp_path / name for name in ("fake", "migrate", "worker")}
    for folder in folders.values():
        folder.mkdir()
    commands = {name: SERVICES[name]["command"] for name in folders}
    assert {command[0] for command in commands.values()} == {"afterword"}

    fake_command = [{"8099": "0", "0.0.0.0": "127.0.0.1"}.get(word, word) for word in commands["fake"][1:]]
    with afterword_process(*fake_command, folder=folders["fake"]) as fake:
        fake_url = await_output(fake, folders["fake"], "export").split()[0]
        settings = environment("worker", {"AFTERWORD_ENDPOINT_URL": fake_url})
        settings |= {"AFTERWORD_DATABASE_URL": postgres_url, "AFTERWORD_REDIS_URL": redis_url}

        with afterword_process(*commands["migrate"][1:], folder=folders["migrate"], settings=settings) as migrate:
            assert migrate.wait(timeout=60) == 0
        with afterword_process(*commands["worker"][1:], folder=folders["worker"], settings=settings) as worker:
            probe = SERVICES["worker"]["healthcheck"]["test"][2:]
            await_true(lambda: afterword(*probe, settings=settings).exit_code == 0)
            result = afterword("submit", "--model", "any", "--message", "hi", "--wait", "30")
            assert result.stdout == "You said: hi\n"
            worker.terminate()
            assert worker.wait(timeout=40) == 0
        assert httpx.get(f"{fake_url}/__stats", trust_env=False).json()["billed"] == 1
