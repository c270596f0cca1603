"""Receivers of webhooks for flow tests, written to the tables as `afterword webhooks add` writes them."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert

from worker.store.clock import now
from worker.webhooks.core.signature import KeyKind
from worker.webhooks.sealed_fields import new_keys, public_text, seal_keys
from worker.webhooks.store.tables import receivers
from worker.webhooks.vault import Vault

MASTER = Fernet.generate_key().decode()
ALLOWED = {
    "secret_keys": MASTER,
    "webhook_allow_http": "true",
    "webhook_allow_cidrs": "127.0.0.0/8",
    "webhook_allow_urls": "true",
}
"""Settings of a worker that may send to receivers of this machine."""


def register(engine: Engine, url: str, *, name: str = "mine", **changes: Any) -> str:
    """Register a receiver, by default a default receiver; return its `whsec_` secret."""
    receiver_id = str(uuid.uuid4())
    keys, _ = new_keys(datetime.now(UTC))
    row = {
        "id": receiver_id, "tenant": "default", "name": name, "url": url, "is_default": True,
        "events": json.dumps(["job.*"]), "payload": "auto", "profile": "afterword", "timeout_s": 15.0, "in_flight": 10,
        "ordering": "none", "on_exhausted": "skip", "status": "enabled",
        "keys_sealed": seal_keys(Vault((MASTER,)), receiver_id, keys), "public_key": public_text(keys), **changes,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(receivers).values(created_at=now()), [row])
    return next(key.text for key in keys if key.kind is KeyKind.HMAC)
