"""A receiver's secrets stay out of logs and tables while its deliveries fail in every way."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from tests.flow.receivers import ALLOWED, MASTER
from tests.flow.system import System
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.webhooks import sealed_fields
from worker.webhooks.core.registration import Registration
from worker.webhooks.core.signature import SigningKey
from worker.webhooks.store import receivers
from worker.webhooks.vault import Vault, new_master_key

TOKEN, VALUE = "q-geheim-0123456789", "h-geheim-0123456789"
CODES = (
    "SELECT r.name, d.last_error_code AS code FROM afterword_deliveries d "
    "JOIN afterword_receivers r ON r.id = d.receiver_id WHERE d.status = 'failed' OR d.last_error_code = 'no_secret'"
)
EXPECTED = {
    "names": {"dns_failed", "dns_timeout"}, "tls": {"tls_failed"}, "refuses": {"http_error"}, "keys": {"no_secret"},
    "header": {"invalid_header"},
}  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver(answer=quotes) as made:
        yield made


def quotes(got: Received) -> ReceiverAnswer:
    """Answer like a server that shows developers their request."""
    asked = json.dumps({"path": got.path, **got.headers})
    return ReceiverAnswer(500, {"x-request-id": got.headers.get("x-key", ""), "server": got.path}, asked.encode())


def register(engine: Engine, name: str, url: str, *, master: str = MASTER, more: str = "") -> list[SigningKey]:
    """Register a default receiver with a token in its URL and a secret header; return its keys."""
    vault, new = Vault((master,)), str(uuid.uuid4())
    keys, _ = sealed_fields.new_keys(datetime.now(UTC))
    sealed = receivers.Sealed(
        *sealed_fields.seal_url(vault, new, f"{url}?token={TOKEN}"),
        sealed_fields.seal_headers(vault, new, {"X-Key": VALUE + more}, url=url),
        sealed_fields.seal_keys(vault, new, keys),
        sealed_fields.public_text(keys),
    )
    with engine.begin() as connection:
        assert receivers.add(connection, new, Registration(name, is_default=True, schedule=(1.0,)), sealed)
    return list(keys)


def forms(keys: list[SigningKey]) -> set[bytes]:
    """Return the secrets that must not appear: the keys as bytes and text, the token, the header's value."""
    secrets = {part for key in keys for part in (key.key, key.text.partition("_")[2].encode())}
    return secrets | {TOKEN.encode(), VALUE.encode(), MASTER.encode()}


def stored(system: System) -> bytes:
    """Return every byte of the SQLite database, including its log."""
    path = Path(make_url(system.database_url).database or "")
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(f"{path.name}*")))


def test_no_secret_is_in_a_log_or_a_table_however_deliveries_fail(
    sqlite_system: System, receiver: WebhookReceiver
) -> None:
    system, other = sqlite_system, new_master_key()
    plain = receiver.url
    keys = register(system.engine, "names", "https://no-such-host.invalid/in")
    keys += register(system.engine, "tls", plain.replace("http://", "https://"))
    keys += register(system.engine, "refuses", plain)
    keys += register(system.engine, "keys", plain, master=other)
    # No command accepts such a value; it was written to the database directly.
    keys += register(system.engine, "header", plain, more="\r\nX-More: 1")

    child = system.start(**ALLOWED, log_level="debug")
    system.await_status(system.send())
    until(
        lambda: len(system.rows(CODES)) == len(EXPECTED),
        what=f"the last attempts, given up or not signed; {system.rows(CODES)}; {system.said()}",
        seconds=90,
    )

    for row in system.rows(CODES):
        assert row.code in EXPECTED[row.name], row
    assert {got.headers["x-key"] for got in receiver.received} == {VALUE}
    assert {got.path for got in receiver.received} == {f"/hooks?token={TOKEN}"}
    # The search works: it finds the receivers' names in both.
    logged, kept = child.text().encode(), stored(system)
    assert b"refuses" in logged
    assert b"refuses" in kept
    for secret in {*forms(keys), other.encode()}:
        assert secret not in logged
        assert secret not in kept


def test_the_query_of_a_jobs_own_address_is_sealed_with_its_first_delivery(
    system: System, receiver: WebhookReceiver
) -> None:
    receiver.answer = lambda _: ReceiverAnswer(204)
    child = system.start(**ALLOWED)

    job_id = system.send(webhook={"url": f"{receiver.url}?token={TOKEN}"})

    until(lambda: receiver.received, what=f"the delivery; {system.said()}")
    until(
        lambda: [row.status for row in system.rows("SELECT status FROM webhook_deliveries_v1")] == ["delivered"],
        what="delivered",
    )
    assert receiver.received[0].path == f"/hooks?token={TOKEN}"
    (row,) = system.rows("SELECT * FROM afterword_receivers")
    assert row.url == receiver.url
    assert sealed_fields.url_of(Vault((MASTER,)), str(row.id), row.url, row.url_sealed).endswith(TOKEN)
    views = ("jobs_v1", "attempts_v1", "usage_v1", "finished_v1", "webhook_deliveries_v1")
    shown = [str(system.rows(f"SELECT * FROM {view}")) for view in views]
    assert job_id in shown[0]
    for text in (*shown, child.text(), receiver.received[0].body.decode()):
        assert TOKEN not in text
