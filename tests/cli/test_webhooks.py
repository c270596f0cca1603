"""webhooks, secrets, events: the commands and their output; a secret is shown once."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from tests.cli.conftest import Command
from tests.cli.operating import HOOK, json_of, refused
from tests.cli.processes import COMMAND
from tests.store.made import accept_all, entry, job, worker
from tests.store.receiving import MASTER, claimed, delivered, delivery, found, receiver, state_of, statuses
from worker.core.lifecycle import DeliveryStatus
from worker.settings import child_environment
from worker.webhooks.store import recover as recoveries
from worker.webhooks.store.tables import receivers
from worker.webhooks.vault import fingerprint, key_id, new_master_key

FAILED, HELD = DeliveryStatus.failed, DeliveryStatus.held


def test_a_secret_is_shown_when_it_is_made_and_never_again(run: Command) -> None:
    made = json_of(run, "webhooks", "add", "billing", HOOK, "--header", "X-Key: geheim")
    assert made["secret"].startswith("whsec_")
    assert made["public_key"].startswith("whpk_")
    assert made["fingerprint"] == fingerprint(made["secret"])

    others = ("list", "show billing", "change billing --timeout 5", "deliveries", "disable billing", "enable billing")
    for command in others:
        result = run("webhooks", *command.split())
        assert result.exit_code == 0, result.stderr
        assert "geheim" not in result.output
        assert made["secret"] not in result.output
    shown = run("webhooks", "show", "billing").stdout
    assert f"hmac {made['fingerprint']}" in shown
    assert made["public_key"] in shown
    assert "X-Key" in shown


def test_a_receiver_is_listed_and_shown_as_it_was_registered(run: Command) -> None:
    values = (
        "--tenant acme --default --event job.failed --event job.expired --payload thin --timeout 7.5 --schedule 5,30 "
        "--rate 2 --in-flight 3 --ordering per_key --on-exhausted block"
    )
    run("webhooks", "add", "billing", HOOK, *values.split())

    (listed,) = json_of(run, "webhooks", "list")
    shown = json_of(run, "webhooks", "show", "billing", "--tenant", "acme")

    assert shown["url"] == "https://hooks.example.com/in"
    assert (shown["events"], shown["schedule"], shown["rate_per_s"]) == (["job.failed", "job.expired"], [5, 30], 2)
    assert {name: shown[name] for name in ("payload", "timeout_s", "in_flight", "ordering", "on_exhausted")} == {
        "payload": "thin", "timeout_s": 7.5, "in_flight": 3, "ordering": "per_key", "on_exhausted": "block",
    }  # fmt: skip
    assert (listed["is_default"], listed["has_hidden_query"], listed["health"]) == (True, True, "breaker: closed")
    assert (shown["health"], shown["deliveries"]) == (["breaker: closed"], {})


def test_values_that_are_not_named_stay(run: Command, engine: Engine) -> None:
    run("webhooks", "add", "billing", HOOK, "--schedule", "5", "--rate", "2", "--default", "--header", "X-A: 1")
    before = json_of(run, "webhooks", "show", "billing")

    run("webhooks", "change", "billing", "--in-flight", "2")
    after = json_of(run, "webhooks", "show", "billing")
    run(
        "webhooks",
        "change",
        "billing",
        *["--schedule", "usual", "--rate", "none", "--no-default", "--drop-header", "x-a"],
    )
    last = json_of(run, "webhooks", "show", "billing")

    assert after == before | {"in_flight": 2}
    assert last == after | {"schedule": None, "rate_per_s": None, "is_default": False, "headers": []}
    assert json_of(run, "webhooks", "change", "billing", "--url", "https://b.example/in")["has_hidden_query"] is False


def test_a_file_of_headers_keeps_them_out_of_the_command_line(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer geheim\n\nX-Team: blue\n")
    assert run("webhooks", "add", "billing", HOOK, "--header-file", str(file)).exit_code == 0
    file.write_text("Authorization: Bearer neu")
    assert run("webhooks", "change", "billing", "--header-file", str(file)).exit_code == 0
    assert sorted(json_of(run, "webhooks", "show", "billing")["headers"]) == ["Authorization", "X-Team"]

    file.write_text("Bearer geheim")
    sentence = refused(run, "webhooks", "change", "billing", "--header-file", str(file), code=2)
    assert "'Name: value'" in sentence
    assert "geheim" not in sentence


def test_another_origin_gets_no_header_of_the_old_one(run: Command, engine: Engine) -> None:
    run("webhooks", "add", "billing", HOOK, "--header", "X-Key: geheim")
    change = ("webhooks", "change", "billing")

    sentence = refused(run, *change, "--url", "https://b.example/in")
    assert "has the headers X-Key for https://hooks.example.com:443" in sentence
    assert run(*change, "--url", "https://hooks.example.com/other").exit_code == 0
    assert run(*change, "--url", "https://b.example/in", "--header", "X-Key: neu").exit_code == 0
    assert run(*change, "--url", "https://c.example/in", "--drop-header", "X-Key").exit_code == 0


def test_a_receiver_whose_address_was_changed_by_hand_needs_its_headers_again(run: Command, engine: Engine) -> None:
    run("webhooks", "add", "billing", "https://hooks.example.com/in", "--header", "X-Key: geheim")
    with engine.begin() as connection:
        connection.execute(update(receivers).values(url="https://thief.example/"))

    assert "were sealed for https://hooks.example.com:443" in run("webhooks", "show", "billing").stdout
    assert "were sealed for" in refused(run, "webhooks", "change", "billing", "--drop-header", "X-Key")
    run("webhooks", "change", "billing", "--header", "X-Key: neu")
    assert json_of(run, "webhooks", "show", "billing")["headers"] == ["X-Key"]


def test_headers_that_a_missing_key_sealed_are_not_lost(run: Command, engine: Engine) -> None:
    run("webhooks", "add", "billing", "https://hooks.example.com/in", "--header", "X-Key: geheim")
    other = new_master_key()
    refused(run, "webhooks", "change", "billing", "--header", "X-New: 1", keys=other)
    assert json_of(run, "webhooks", "show", "billing")["headers"] == ["X-Key"]


def test_mistakes_are_sentences(run: Command) -> None:
    run("webhooks", "add", "billing", HOOK)
    add = ("webhooks", "add")
    assert "has a receiver 'billing' already" in refused(run, *add, "billing", HOOK)
    assert "does not allow it; use https://" in refused(run, *add, "b", "http://a.example/", code=2)
    assert "address is not public" in refused(run, *add, "b", "https://127.0.0.1/", code=2)
    assert "set by this service" in refused(run, *add, "b", HOOK, "--header", "webhook-id: 1", code=2)
    assert "'Name: value'" in refused(run, *add, "b", HOOK, "--header", "X", code=2)
    assert 'did you mean "job.failed"?' in refused(run, *add, "b", HOOK, "--event", "job.fail", code=2)
    assert "in_flight is 0" in refused(run, *add, "b", HOOK, "--in-flight", "0", code=2)
    assert "no number" in refused(run, *add, "b", HOOK, "--schedule", "5,x", code=2)
    assert "did you mean billing?" in refused(run, "webhooks", "show", "biling")
    assert "has no header x-a" in refused(run, "webhooks", "change", "billing", "--drop-header", "X-A")
    assert "is no id" in refused(run, "webhooks", "redeliver", "7", code=2)
    assert "write seconds, or a duration such as" in refused(
        run, "webhooks", "rotate", "billing", "--overlap", "soon", code=2
    )
    assert "from 0 to 7 days" in refused(run, "webhooks", "rotate", "billing", "--overlap", "8d")
    assert "how long ago" in refused(run, "webhooks", "recover", "billing", "--since", "999999999d", code=2)
    assert "not before --until" in refused(
        run, *["webhooks", "recover", "billing", "--since", "1h", "--until", "2h"], code=2
    )


def test_the_policy_of_the_settings_holds_for_addresses(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWORD_WEBHOOK_ALLOW_HTTP", "true")
    monkeypatch.setenv("AFTERWORD_WEBHOOK_ALLOW_CIDRS", "127.0.0.0/8")
    assert json_of(run, "webhooks", "add", "local", "http://127.0.0.1:9/in")["name"] == "local"


def test_another_port_is_taken_once_it_is_set(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = "https://hooks.example.com:8443/in"
    assert "port is 8443; 443 can be used" in refused(run, "webhooks", "add", "other", hook, code=2)
    monkeypatch.setenv("AFTERWORD_WEBHOOK_PORTS", "8443")
    assert json_of(run, "webhooks", "add", "other", hook)["name"] == "other"


def test_a_command_that_needs_a_master_key_says_so(run: Command, afterword: Command, engine: Engine) -> None:
    made = receiver(engine)
    old = delivery(engine, made, FAILED)
    assert "AFTERWORD_SECRET_KEYS" in run("webhooks", "show", "billing", keys=new_master_key()).stdout
    result = run("webhooks", "rotate", "billing", keys=new_master_key())
    assert result.exit_code == 1
    assert "add the missing key" in result.stderr
    assert run("webhooks", "redeliver", old, keys=new_master_key()).exit_code == 0


def test_a_database_without_tables_is_a_sentence(afterword: Command, tmp_path: Any) -> None:
    result = afterword("webhooks", "list", settings={"AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"})
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the database has no tables of Afterword yet; run: afterword db upgrade\n",
    )


def test_a_rotated_secret_is_new_and_the_old_one_ends(run: Command) -> None:
    first = json_of(run, "webhooks", "add", "billing", HOOK)

    second = json_of(run, "webhooks", "rotate", "billing")
    keys = json_of(run, "webhooks", "show", "billing")["keys"]
    assert second["secret"] != first["secret"]
    assert second["public_key"] == first["public_key"]
    assert [key.split()[:2] for key in keys] == [
        ["hmac", second["fingerprint"]],
        ["hmac", first["fingerprint"]],
        ["ed25519", keys[2].split()[1]],
    ]
    assert ["until" in key for key in keys] == [False, True, False]

    third = json_of(run, "webhooks", "rotate", "billing", "--overlap", "0")
    assert len(json_of(run, "webhooks", "show", "billing")["keys"]) == 2
    assert third["secret"] not in (first["secret"], second["secret"])

    public = json_of(run, "webhooks", "rotate", "billing", "--kind", "ed25519")
    assert public["secret"] is None
    assert public["public_key"] != first["public_key"]


def test_a_disabled_receivers_deliveries_are_resumed_or_not_as_one_says(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    old, young = (delivery(engine, made, HELD, age_s=age_s) for age_s in (7200.0, 60.0))
    run("webhooks", "disable", "billing", "--reason", "maintenance")
    assert "disabled already (maintenance)" in refused(run, "webhooks", "disable", "billing")
    assert "is disabled" in refused(run, "webhooks", "test", "billing")
    assert "is disabled" in refused(run, "webhooks", "recover", "billing", "--since", "1h")

    resumed = run("webhooks", "enable", "billing", "--resume", "1h")

    assert resumed.stdout == "billing is enabled; queued again: 1, cancelled: 1\n"
    assert statuses(engine, old, young) == ["cancelled", "queued"]


def test_nothing_on_hold_is_sent_when_nothing_is_to_be_resumed(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    held = delivery(engine, made, HELD)

    assert "cancelled: 1" in run("webhooks", "enable", "billing", "--resume", "none").stdout
    assert statuses(engine, held) == ["cancelled"]
    assert json_of(run, *["webhooks", "recover", "billing", "--since", "1h", "--status", "cancelled", "--dry-run"])[
        "found"
    ] == {"cancelled": 1}


def test_a_removed_receiver_is_gone_and_its_waiting_deliveries_are_cancelled(run: Command, engine: Engine) -> None:
    waits = delivery(engine, receiver(engine))

    assert "with --yes" in refused(run, "webhooks", "remove", "billing", code=2)
    assert statuses(engine, waits) == ["queued"]
    assert run("webhooks", "remove", "billing", "--yes").stdout == "billing is removed; deliveries cancelled: 1\n"

    assert (statuses(engine, waits), json_of(run, "webhooks", "list")) == (["cancelled"], [])
    assert "was removed" in refused(run, "webhooks", "redeliver", waits)


def test_a_user_at_a_terminal_is_asked_before_a_receiver_is_removed(engine: Engine, database_url: str) -> None:
    waits = delivery(engine, receiver(engine))
    environment = child_environment({"AFTERWORD_DATABASE_URL": database_url})
    answers, terminal = os.openpty()
    command = [*COMMAND, "webhooks", "remove", "billing"]
    try:
        os.write(answers, b"n\n")
        done = subprocess.run(command, stdin=terminal, capture_output=True, env=environment, timeout=60, check=False)
    finally:
        os.close(terminal)
        os.close(answers)

    assert b"Remove billing" in done.stderr
    assert (done.returncode, statuses(engine, waits)) == (1, ["queued"])


def test_deliveries_say_why_they_wait(run: Command, engine: Engine) -> None:
    made, other = receiver(engine), receiver(engine, "other")
    waits = delivery(engine, made, waiting_for="order")
    delivery(engine, other, HELD)
    delivery(engine, made, FAILED)

    (row,) = json_of(run, *["webhooks", "deliveries", "--receiver", "billing", "--status", "queued"])
    assert (row["id"], row["why"]) == (waits, "order: an earlier delivery of its key has not ended")
    assert len(json_of(run, "webhooks", "deliveries")) == 3
    run("webhooks", "disable", "billing")
    assert "the delivery will be put on hold" in run("webhooks", "attempts", waits).stdout


def test_a_jobs_deliveries_are_found_by_its_id(run: Command, engine: Engine) -> None:
    job_id = "8d7a4c1e-0000-4000-8000-000000000009"
    mine = delivery(engine, receiver(engine), job_id=job_id)

    assert [one["id"] for one in json_of(run, "webhooks", "deliveries", "--job", job_id)] == [mine]


def test_a_delivery_is_shown_with_its_attempts(run: Command, engine: Engine) -> None:
    sent = delivery(engine, receiver(engine))
    claim = claimed(engine, worker(engine), sent)
    assert claim is not None
    delivered(engine, claim)

    shown = json_of(run, "webhooks", "attempts", sent)
    assert (shown["status"], shown["why"]) == ("delivered", None)
    assert [(one["attempt"], one["outcome"]) for one in shown["attempt_rows"]] == [(1, "delivered")]
    unknown = "00000000-0000-4000-8000-000000000000"
    assert f"no delivery {unknown} is known" in refused(run, "webhooks", "attempts", unknown)


def test_a_delivery_is_sent_once_more(run: Command, engine: Engine) -> None:
    old = delivery(engine, receiver(engine), FAILED)

    assert run("webhooks", "redeliver", old).exit_code == 0
    assert (state_of(engine, old).status, state_of(engine, old).origin) == ("queued", "manual")


def test_a_test_without_a_worker_times_out_and_says_so(run: Command, engine: Engine) -> None:
    receiver(engine)

    new = json_of(run, "webhooks", "test", "billing")["delivery"]
    assert (state_of(engine, new).event_type, state_of(engine, new).origin) == ("receiver.test", "test")
    result = run("webhooks", "test", "billing", "--wait", "0.1")
    assert result.exit_code == 4
    assert "no attempt was made in time" in result.stderr


def test_a_recovery_is_counted_begun_seen_and_cancelled(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    for _ in range(3):
        delivery(engine, made, FAILED)
    recover = ("webhooks", "recover", "billing", "--since", "1h")
    assert run(*recover, "--dry-run").stdout == "3 failed found\n"
    assert json_of(run, "webhooks", "recoveries") == []

    new = json_of(run, *recover, "--rate", "5")["recovery"]
    assert "a recovery of billing is running" in refused(run, *recover)
    with engine.begin() as connection:
        recoveries.step(connection)
    (seen,) = json_of(run, "webhooks", "recoveries")
    assert (seen["id"], seen["status"], seen["statuses"], seen["rate_per_s"]) == (new, "running", ["failed"], 5)

    assert json_of(run, "webhooks", "recoveries", "--cancel", new)[0]["status"] == "cancelled"
    assert "is running" in refused(run, "webhooks", "recoveries", "--cancel", new)
    assert json_of(run, "webhooks", "recoveries", "list") == json_of(run, "webhooks", "recoveries")
    assert "is running" in refused(run, "webhooks", "recoveries", "cancel", new)
    second = json_of(run, *recover)["recovery"]
    assert json_of(run, "webhooks", "recoveries", "cancel", second) == {"recovery": second, "status": "cancelled"}
    assert {row["status"] for row in json_of(run, "webhooks", "recoveries", "list")} == {"cancelled"}


def test_the_feed_gives_every_end_once_and_says_where_to_go_on(run: Command, engine: Engine) -> None:
    for n in range(3):
        accept_all(engine, entry(job(request={}, custom_id=f"row-{n}", tenant="ab"[n % 2])))

    first = json_of(run, "events", "--after", "0", "--limit", "2")
    rest = json_of(run, "events", "--after", str(first["next"]))
    assert json_of(run, "events", "--limit", "2") == first
    assert [one["custom_id"] for one in first["events"] + rest["events"]] == ["row-0", "row-1", "row-2"]
    assert {one["type"] for one in first["events"]} == {"job.failed"}
    assert json_of(run, "events", "--after", str(rest["next"])) == {"events": [], "next": rest["next"]}
    assert len(json_of(run, "events", "--after", "0", "--tenant", "a")["events"]) == 2
    assert run("events", "--after", "0").stdout.splitlines()[-1] == f"next: --after {rest['next']}"


def test_master_keys_are_changed_without_losing_a_secret(run: Command, engine: Engine) -> None:
    made = receiver(engine)
    new = json_of(run, "secrets", "new-key")["key"]

    both = run("secrets", "check", keys=f"{new},{MASTER}")
    assert both.exit_code == 0
    assert "3 secrets; run: afterword secrets rotate" in both.stdout
    assert ": 3\n" in run("secrets", "rotate", keys=f"{new},{MASTER}").stdout
    assert ": 0\n" in run("secrets", "rotate", keys=f"{new},{MASTER}").stdout
    again = json.loads(run("secrets", "rotate", "--json", keys=f"{new},{MASTER}").stdout)
    assert again == {"key": key_id(new), "resealed": 0, "faults": {}}
    assert "can be taken out" in run("secrets", "check", keys=f"{new},{MASTER}").stdout
    assert run("secrets", "check", keys=new).exit_code == 0
    assert found(engine, made.id).sealed.keys_sealed != made.sealed.keys_sealed


def test_a_missing_master_key_is_found_with_the_names_of_its_secrets(run: Command, engine: Engine) -> None:
    receiver(engine)
    result = run("secrets", "check", keys=new_master_key())
    rotation = run("secrets", "rotate", keys=new_master_key())

    assert (result.exit_code, rotation.exit_code) == (1, 1)
    assert "default/billing (keys): no key of AFTERWORD_SECRET_KEYS" in result.stderr
    assert MASTER not in result.output
    assert json.loads(run("secrets", "check", "--json", keys=new_master_key()).stdout)["secrets"] == 3
    rotated = json.loads(run("secrets", "rotate", "--json", keys=new_master_key()).stdout)
    assert set(rotated["faults"]) == {"default/billing (keys)", "default/billing (url)", "default/billing (headers)"}


def test_keys_that_do_not_open_are_replaced_when_one_says_so(run: Command, engine: Engine) -> None:
    receiver(engine)
    other = new_master_key()

    assert "--overlap 0" in run("webhooks", "rotate", "billing", keys=other).stderr
    made = json.loads(run("webhooks", "rotate", "billing", "--overlap", "0", "--json", keys=other).stdout)

    assert made["secret"].startswith("whsec_")
    shown = json.loads(run("webhooks", "show", "billing", "--json", keys=other).stdout)
    assert [key.split()[0] for key in shown["keys"]] == ["hmac", "ed25519"]
    assert "add the missing key" in shown["headers"][0]
