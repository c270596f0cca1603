"""From a name in a job to a registered receiver: add, update, and a secret that the operator supplies."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Engine, insert, update

from tests.cli.conftest import Command
from tests.cli.operating import HOOK, json_of, refused
from tests.store.made import accept_all, entry, job, one, rows
from tests.store.receiving import VAULT, delivery, found, receiver, state_of, statuses
from worker.cli import main
from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import now
from worker.webhooks import sealed_fields
from worker.webhooks.core.outcome import DisableReason
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.signature import KeyKind
from worker.webhooks.store.health_column import text_of
from worker.webhooks.store.tables import receivers
from worker.webhooks.vault import fingerprint, new_key

HELD = "SELECT status, variant, ordering_key, sequence FROM afterword_deliveries ORDER BY created_at, sequence"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def ended(engine: Engine, *, name: str = "billing", tenant: str = "default") -> None:
    """Make a job fail that names a receiver."""
    fields = {"request": {}, "webhook": {"to": name}, "ordering_key": "k", "tenant": tenant}
    accept_all(engine, entry(job(**fields)))


def secret_file(folder: Path, text: str) -> str:
    path = folder / "secret"
    path.write_text(text)
    return str(path)


def test_a_receiver_that_jobs_have_named_is_registered_as_one_wants_it(run: Command, engine: Engine) -> None:
    ended(engine)
    ended(engine)
    assert [(row.status, row.ordering_key) for row in rows(engine, HELD)] == [("held", None)] * 2

    made = json_of(run, *f"webhooks add billing {HOOK} --payload thin --ordering per_key --event job.failed".split())

    assert made["secret"].startswith("whsec_")
    assert [tuple(row) for row in rows(engine, HELD)] == [("queued", "thin", "k", 1), ("queued", "thin", "k", 2)]
    shown = json_of(run, "webhooks", "show", "billing")
    assert (shown["status"], shown["payload"], shown["id"]) == ("enabled", "thin", made["id"])
    assert "already" in refused(run, "webhooks", "add", "billing", HOOK)


def test_held_deliveries_that_a_receiver_does_not_want_are_cancelled(run: Command, engine: Engine) -> None:
    ended(engine)

    json_of(run, "webhooks", "add", "billing", HOOK, "--event", "job.completed", "--profile", "openai")

    assert [row.status for row in rows(engine, HELD)] == ["cancelled"]


@pytest.mark.parametrize(
    "line",
    [
        "enable billing", "disable billing --reason maintenance", "change billing --url https://b.example/in",
        "rotate billing", "test billing", "recover billing --since 1h",
    ],
)  # fmt: skip
def test_a_receiver_named_only_by_jobs_must_be_registered_first(run: Command, engine: Engine, line: str) -> None:
    ended(engine)

    assert "with: afterword webhooks add billing URL" in refused(run, "webhooks", *line.split())

    assert one(engine, "SELECT status FROM afterword_receivers").status == "disabled"
    assert json_of(run, "webhooks", "add", "billing", HOOK)["name"] == "billing"
    assert [row.status for row in rows(engine, HELD)] == ["queued"]


def test_the_sentence_about_an_awaited_receiver_names_its_tenant(run: Command, engine: Engine) -> None:
    ended(engine, tenant="acme")
    assert "URL --tenant acme" in refused(run, "webhooks", "enable", "billing", "--tenant", "acme")
    (held,) = rows(engine, "SELECT id FROM afterword_deliveries")
    assert "the receiver billing is not registered yet" in refused(run, "webhooks", "redeliver", str(held.id))


def test_an_awaited_receiver_can_be_removed(run: Command, engine: Engine) -> None:
    ended(engine)
    assert json_of(run, "webhooks", "remove", "billing", "--yes")["cancelled"] == 1
    assert json_of(run, "webhooks", "list") == []


def test_a_reason_that_looks_like_that_of_an_awaited_receiver_is_only_a_reason(run: Command, engine: Engine) -> None:
    receiver(engine)
    run("webhooks", "disable", "billing", "--reason", "not_registered")

    assert "has a receiver 'billing' already" in refused(run, "webhooks", "add", "billing", HOOK)
    assert json_of(run, "webhooks", "enable", "billing")["status"] == "enabled"


def test_a_new_address_begins_with_a_new_health(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    sick = ReceiverHealth(ramp=1, open_until_s=4e9, open_s=600.0, failing_since_s=1.0, disabled=DisableReason.forbidden)
    with engine.begin() as connection:
        connection.execute(update(receivers).values(health=text_of(sick)))

    run("webhooks", "change", "billing", "--in-flight", "2")
    assert found(engine, made.id).health == sick
    run("webhooks", "change", "billing", "--url", "https://b.example/in", "--drop-header", "X-Key")

    assert found(engine, made.id).health == ReceiverHealth()


def test_commands_answer_a_script(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    held = delivery(engine, made, DeliveryStatus.held)

    assert json_of(run, "webhooks", "disable", "billing") == {
        "tenant": "default", "name": "billing", "status": "disabled", "disabled_reason": "operator",
    }  # fmt: skip
    assert json_of(run, "webhooks", "enable", "billing") == {
        "tenant": "default", "name": "billing", "status": "enabled", "queued": 1, "cancelled": 0,
    }  # fmt: skip
    assert json_of(run, "webhooks", "redeliver", held) == {"delivery": held, "status": "queued"}
    assert state_of(engine, held).origin == "manual"
    assert json_of(run, "webhooks", "remove", "billing", "--yes") == {
        "tenant": "default", "name": "billing", "status": "removed", "cancelled": 1,
    }  # fmt: skip
    assert statuses(engine, held) == ["cancelled"]


def test_every_command_on_webhooks_secrets_and_events_takes_json() -> None:
    commands = {**group("webhooks").commands, **group("secrets").commands, "events": main.commands["events"]}

    assert len(commands) > 10
    for name, command in commands.items():
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, name


def group(name: str) -> click.Group:
    found = main.commands[name]
    assert isinstance(found, click.Group)
    return found


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_receiver_keeps_the_secret_of_its_operator(run: Command, engine: Engine, tmp_path: Path, how: str) -> None:
    source = secret_file(tmp_path, f"{SECRET}\n") if how == "file" else "-"
    arguments = ("webhooks", "add", "billing", HOOK, "--secret-file", source)

    result = run(*arguments, "--json", typed=SECRET if how == "stdin" else None)

    made = json.loads(result.stdout)
    assert SECRET not in result.output
    assert (made["secret"], made["fingerprint"]) == (None, fingerprint(SECRET))
    assert made["public_key"].startswith("whpk_")
    kept = found(engine, made["id"])
    keys = sealed_fields.keys_of(VAULT, kept.id, kept.sealed.keys_sealed)
    assert [key.text == SECRET for key in keys] == [True, False]
    assert json_of(run, "webhooks", "rotate", "billing")["secret"] not in (None, SECRET)


def test_a_receiver_keeps_the_key_pair_that_it_knows_the_public_half_of(
    run: Command, engine: Engine, tmp_path: Path
) -> None:
    pair = new_key(KeyKind.ED25519, found(engine, receiver(engine, "other").id).created_at)

    made = json_of(run, "webhooks", "add", "billing", HOOK, "--secret-file", secret_file(tmp_path, pair.text))

    assert made["public_key"] == pair.public_text
    assert made["secret"].startswith("whsec_")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no signing secret"), ("whsec_" + "geheim" * 100, "holds no signing secret"),
        ("geheim", "begins with whsec_"), ("whsec_geheim*", "is not base64"), ("whsec_AAAA", "must have 24 to 64"),
        ("whpk_AAAA", "is public and cannot sign"),
    ],
    ids=["empty", "long", "word", "no base64", "short", "public"],
)  # fmt: skip
def test_a_file_without_a_signing_secret_registers_no_receiver(
    run: Command, tmp_path: Path, text: str, reason: str
) -> None:
    file = secret_file(tmp_path, text)

    said = refused(run, "webhooks", "add", "billing", HOOK, "--secret-file", file, code=2)

    assert reason in said
    assert "geheim" not in said
    assert json_of(run, "webhooks", "list") == []


def test_rotating_seals_a_jobs_url_together_with_its_first_secret(run: Command, engine: Engine) -> None:
    name = f"url-{'0a' * 12}"
    row: dict[str, Any] = {
        "id": "8d7a4c1e-0000-4000-8000-000000000001", "tenant": "default", "name": name, "url": HOOK,
        "is_default": False, "events": '["job.*"]', "payload": "auto", "profile": "afterword", "timeout_s": 15.0,
        "in_flight": 10, "ordering": "none", "on_exhausted": "skip", "status": "enabled",
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(receivers).values(created_at=now(), **row))

    assert "geheim" not in run("webhooks", "show", name).output
    assert json_of(run, "webhooks", "rotate", name)["secret"].startswith("whsec_")

    kept = found(engine, row["id"]).sealed
    assert kept.url == "https://hooks.example.com/in"
    assert sealed_fields.url_of(VAULT, row["id"], kept.url, kept.url_sealed) == HOOK
