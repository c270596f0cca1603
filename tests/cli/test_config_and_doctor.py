"""config, db upgrade, doctor: their messages for an operator."""

import json
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.cli.conftest import Command
from tests.store.receiving import receiver
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.stack import Stack
from worker.settings.page import reference


def test_config_shows_the_values_in_effect_and_no_secret(afterword: Command) -> None:
    settings = {
        "AFTERWORD_ENDPOINT_URL": "https://a.example",
        "AFTERWORD_ENDPOINT_KEY": "sk-geheim",
        "AFTERWORD_REDIS_URL": "redis://:geheim@h/0",
        "AFTERWORD_CONCURRENCY": "7",
    }
    text = afterword("config", settings=settings)
    shown = json.loads(afterword("config", "--json").stdout)
    assert "AFTERWORD_CONCURRENCY=7\n" in text.stdout
    assert 'url = "https://a.example/v1/chat/completions"' in text.stdout
    assert shown["AFTERWORD_CONCURRENCY"] == 7
    assert shown["endpoints"]["default"]["key"] == "***"
    assert "geheim" not in text.stdout + json.dumps(shown)


def test_config_shows_tenants_as_sections(afterword: Command, tmp_path: Path) -> None:
    path = tmp_path / "afterword.toml"
    path.write_text('[tenants.acme]\nweight = 3\n[tenants."*"]\nweight = 0.5\n')

    done = afterword("config", settings={"AFTERWORD_CONFIG": str(path)})

    assert '\n[tenants."acme"]\nweight = 3.0\n\n[tenants."*"]\nweight = 0.5\n' in done.stdout
    assert "tenants=" not in done.stdout


def test_config_prints_the_page_of_all_settings(afterword: Command) -> None:
    assert afterword("config", "--reference").stdout == reference()


def test_bad_settings_are_sentences_and_no_traceback(afterword: Command) -> None:
    result = afterword("config", settings={"AFTERWORD_CONCURRENCY": "many", "AFTERWORD_LEASE_S": "x"})
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 2
    assert result.stderr.startswith("Error: AFTERWORD_CONCURRENCY is 'many'; it must be a whole number")


@pytest.mark.parametrize(
    "command", [["db", "upgrade"], ["endpoints", "list"], ["jobs"], ["status", "x"], ["wait", "x"], ["submit", "{}"]]
)
def test_a_missing_url_is_named(afterword: Command, command: list[str]) -> None:
    result = afterword(*command)
    assert result.exit_code == 1
    assert "_URL is not set" in result.stderr


def test_an_upgrade_makes_the_tables_and_can_be_repeated(afterword: Command, tmp_path: Path) -> None:
    settings = {"AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"}
    assert "from nothing to 0" in afterword("db", "upgrade", settings=settings).stdout
    assert "nothing to do" in afterword("db", "upgrade").stdout
    assert afterword("jobs").stdout == "no jobs\n"


def test_a_doctor_finds_a_running_system_well(afterword: Command, stack: Stack) -> None:
    result = afterword("doctor", "--json", settings=stack.exports())
    states = {one["part"]: one["state"] for one in json.loads(result.stdout)}
    assert states == {
        "database": "ok",
        "workers": "ok",
        "jobs": "ok",
        "webhooks": "ok",
        "receivers": "ok",
        "delivered": "ok",
        "redis": "ok",
        "endpoint": "ok",
    }
    assert result.exit_code == 0


def test_a_probe_finds_the_worker_of_this_host(afterword: Command, stack: Stack) -> None:
    result = afterword("doctor", "--worker", settings=stack.exports())
    assert result.exit_code == 0
    assert "renews its lease" in result.stdout


def test_a_doctor_finds_a_migrated_database_without_workers(
    afterword: Command, database_url: str, redis_url: str
) -> None:
    with FakeEndpoint() as fake:
        settings = {
            "AFTERWORD_DATABASE_URL": database_url,
            "AFTERWORD_REDIS_URL": redis_url,
            "AFTERWORD_ENDPOINT_URL": fake.url,
        }
        result = afterword("doctor", settings=settings)
    probe = afterword("doctor", "--worker")
    assert "warning workers   none is alive: jobs wait" in result.stdout
    assert "no key is set" in result.stdout
    assert result.exit_code == 0
    assert probe.exit_code == 1


def test_a_doctor_finds_the_keys_of_webhooks_missing(afterword: Command, database_url: str, engine: Engine) -> None:
    receiver(engine)

    result = afterword("doctor", settings={"AFTERWORD_DATABASE_URL": database_url})

    assert "failed  webhooks  the database has receivers of webhooks, but AFTERWORD_SECRET_KEYS" in result.stdout


def test_a_doctor_names_the_faults_to_repair(afterword: Command, tmp_path: Path) -> None:
    nobody = "127.0.0.1:1"  # tcpmux: no server listens there
    settings = {
        "AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path / 'empty.db'}",
        "AFTERWORD_REDIS_URL": f"redis://{nobody}/0",
        "AFTERWORD_ENDPOINT_URL": f"http://{nobody}",
    }
    result = afterword("doctor", settings=settings)
    assert result.exit_code == 1
    assert (
        "failed  database  sqlite: the database has no tables of Afterword yet; run: afterword db upgrade"
        in result.stdout
    )
    assert "failed  redis     ConnectionError" in result.stdout
    assert f"failed  endpoint  default: {nobody} cannot be reached" in result.stdout


def test_a_doctor_without_any_setting_names_all_of_them(afterword: Command) -> None:
    result = afterword("doctor")
    assert result.exit_code == 1
    for name in ("AFTERWORD_DATABASE_URL", "AFTERWORD_REDIS_URL", "AFTERWORD_ENDPOINT_URL"):
        assert name in result.stdout


def test_a_database_that_is_away_is_a_sentence_without_its_password(afterword: Command) -> None:
    settings = {"AFTERWORD_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d"}
    result = afterword("doctor", settings=settings)
    assert "failed  database" in result.stdout
    assert "geheim" not in result.stdout


def test_a_command_on_a_database_that_is_away_is_a_sentence(afterword: Command) -> None:
    result = afterword("jobs", settings={"AFTERWORD_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d"})
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "geheim" not in result.stderr


def test_doctor_names_lists_of_jobs_that_no_worker_reads(afterword: Command, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.lpush("chat.intake:3", "{}")
    found = json.loads(afterword("doctor", "--json", settings={"AFTERWORD_REDIS_URL": redis_url}).stdout)
    (queues,) = [one for one in found if one["part"] == "queues"]
    assert queues["state"] == "warning"
    assert "'chat.intake:3' (1)" in queues["text"]
    assert queues["figures"] == {"unread_lists": {"chat.intake:3": 1}}


def test_config_masks_the_parameters_of_an_endpoint(afterword: Command) -> None:
    azure = "https://a.example/chat/completions?api-version=2024&api-key=Pl4ntedKey42"
    result = afterword("config", settings={"AFTERWORD_ENDPOINT_URL": azure})
    assert "api-version=2024&api-key=***" in result.stdout
    assert "Pl4ntedKey42" not in result.output
