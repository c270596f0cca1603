"""Webhooks with the worker's own signatures, for tests of the receiving side."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.producers.made import ROOT
from worker.webhooks.core.signature import KeyKind, SigningKey, signed_headers
from worker.webhooks.vault import new_key, sign_ed25519

VECTORS: list[dict[str, Any]] = json.loads(
    (ROOT / "tests" / "webhooks" / "core" / "signature_vectors.json").read_text()
)
BODY = '{"id":"evt_1","type":"job.completed","data":{"text":"Zürich 你好 😀"}}'.encode()
EVENT = json.loads(BODY)


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def made(kind: KeyKind = KeyKind.HMAC, *, ends_at: datetime | None = None) -> SigningKey:
    key = new_key(kind, now() - timedelta(days=1))
    return SigningKey(kind, key.key, key.created_at, ends_at)


def public(key: SigningKey) -> str:
    assert key.public_text
    return key.public_text


def headers_of(*keys: SigningKey, body: bytes = BODY, at: datetime | None = None) -> dict[str, str]:
    return signed_headers(keys, "msg_1", body, at=at or now(), ed25519=sign_ed25519)


def headers_of_vector(vector: dict[str, Any]) -> dict[str, str]:
    return {
        "webhook-id": vector["id"],
        "webhook-timestamp": str(vector["timestamp"]),
        "webhook-signature": f"v1,{'A' * 43}= {vector['v1']} {vector['v1a']}",
    }
