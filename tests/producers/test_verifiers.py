"""Our package, the reference libraries and OpenAI's SDK accept the worker's signatures and refuse changed requests."""

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afterword import WebhookVerificationError, verify_webhook
from tests.producers.signed import BODY, EVENT, VECTORS, headers_of, headers_of_vector, made, now, public
from worker.webhooks.core.signature import KeyKind, rotated

# verifier(body, headers, secret) returns True if it accepts the webhook.
Verifier = Callable[[bytes, dict[str, str], str], bool]
SECOND = timedelta(seconds=1)
NODE_CRYPTO = """
const crypto = require("node:crypto");
const bytes = (text) => Buffer.from(text.slice(text.search(/[_,]/) + 1), "base64");
const found = JSON.parse(require("node:fs").readFileSync(0)).map((sample) => {
    const content = Buffer.from(`${sample.id}.${sample.timestamp}.${sample.body}`);
    const mac = crypto.createHmac("sha256", bytes(sample.secret)).update(content).digest("base64");
    const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), bytes(sample.public_key)]);
    const key = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
    return [mac === sample.v1.slice(3), crypto.verify(null, content, key, bytes(sample.v1a))];
});
console.log(JSON.stringify(found));
"""
NODE_REFERENCE = """
const { Webhook } = require("standardwebhooks");
const found = JSON.parse(require("node:fs").readFileSync(0)).map(({ secret, headers, body, sign }) => {
    const webhook = new Webhook(secret);
    if (sign) return webhook.sign(sign.id, new Date(sign.timestamp * 1000), body);
    try {
        webhook.verify(body, headers);
        return true;
    } catch (error) {
        return error.message;
    }
});
console.log(JSON.stringify(found));
"""


def ours(body: bytes, headers: dict[str, str], secret: str) -> bool:
    try:
        return verify_webhook(body, headers, secret) == EVENT
    except WebhookVerificationError:
        return False


def reference(body: bytes, headers: dict[str, str], secret: str) -> bool:
    from standardwebhooks import Webhook
    from standardwebhooks import WebhookVerificationError as Refused

    try:
        return bool(Webhook(secret).verify(body, headers) == EVENT)
    except Refused:
        return False


def openai(body: bytes, headers: dict[str, str], secret: str) -> bool:
    from openai import InvalidWebhookSignatureError, OpenAI

    with OpenAI(api_key="none", webhook_secret=secret) as client:
        try:
            event: Any = client.webhooks.unwrap(body, headers)
        except InvalidWebhookSignatureError:
            return False
    return bool(event.id == EVENT["id"] and event.type == EVENT["type"])


each_verifier = pytest.mark.parametrize("accepts", [ours, reference, openai], ids=["ours", "reference", "openai"])


@each_verifier
def test_both_kinds_of_signature_in_one_header_are_accepted(accepts: Verifier) -> None:
    secret, pair = made(), made(KeyKind.ED25519)

    headers = headers_of(secret, pair)

    assert headers["webhook-signature"].count("v1,") == headers["webhook-signature"].count("v1a,") == 1
    assert accepts(BODY, headers, secret.text)


@each_verifier
def test_while_keys_overlap_the_new_and_the_old_one_are_accepted_and_no_other(accepts: Verifier) -> None:
    old, new = made(), made()

    headers = headers_of(*rotated([old, made(KeyKind.ED25519)], new, now=now()))

    assert accepts(BODY, headers, new.text)
    assert accepts(BODY, headers, old.text)
    assert not accepts(BODY, headers, made().text)


@each_verifier
def test_an_old_key_is_accepted_until_the_instant_it_expires(accepts: Verifier) -> None:
    at = now()
    new, old = made(), made(ends_at=at)

    assert accepts(BODY, headers_of(new, old, at=at - timedelta(microseconds=1)), old.text)
    assert not accepts(BODY, headers_of(new, old, at=at), old.text)
    assert accepts(BODY, headers_of(new, old, at=at), new.text)


@each_verifier
@pytest.mark.parametrize(("minutes", "accepted"), [(-10, False), (-4, True), (4, True), (10, False)])
def test_clocks_may_differ_by_less_than_five_minutes(accepts: Verifier, minutes: int, accepted: bool) -> None:
    key = made()
    assert accepts(BODY, headers_of(key, at=now() + timedelta(minutes=minutes)), key.text) is accepted


@each_verifier
def test_whatever_was_changed_is_refused(accepts: Verifier) -> None:
    key = made()
    headers = headers_of(key)
    later = str(int(headers["webhook-timestamp"]) + 1)

    assert accepts(BODY, headers, key.text)
    assert not accepts(BODY.replace(b"job.completed", b"job.cancelled"), headers, key.text)
    assert not accepts(BODY + b" ", headers, key.text)
    assert not accepts(BODY, headers | {"webhook-id": "msg_2"}, key.text)
    assert not accepts(BODY, headers | {"webhook-timestamp": later}, key.text)


def test_a_public_key_verifies_too_before_and_after_a_rotation() -> None:
    old, new = made(KeyKind.ED25519), made(KeyKind.ED25519)

    headers = headers_of(*rotated([old, made()], new, now=now()))

    assert ours(BODY, headers, public(new))
    assert ours(BODY, headers, public(old))
    assert not ours(BODY, headers, public(made(KeyKind.ED25519)))
    assert not ours(BODY + b" ", headers, public(new))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_is_what_every_verifier_expects(vector: dict[str, Any]) -> None:
    from openai import OpenAI
    from standardwebhooks import Webhook

    body, headers = vector["body"].encode(), headers_of_vector(vector)
    for secret in (vector["secret"], vector["public_key"]):
        assert verify_webhook(body, headers, secret, now=vector["timestamp"]) == json.loads(body)
    with OpenAI(api_key="none") as client:
        client.webhooks.verify_signature(body, headers, secret=vector["secret"], tolerance=10**12)
    # Webhook.verify takes no clock as an argument, so compare its signature instead.
    at = datetime.fromtimestamp(vector["timestamp"], UTC)
    assert Webhook(vector["secret"]).sign(vector["id"], at, vector["body"]) == vector["v1"]


def node(script: str, cases: object, folder: Path) -> Any:
    if shutil.which("node") is None:
        pytest.skip("no node on PATH")
    done = subprocess.run(
        ["node", "-e", script], input=json.dumps(cases), cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_vectors_hold_for_another_implementation_of_both_algorithms(tmp_path: Path) -> None:
    assert node(NODE_CRYPTO, VECTORS, tmp_path) == [[True, True]] * len(VECTORS)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_reference_verifier_of_javascript_agrees(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path)]
    subprocess.run([*install, "standardwebhooks@1"], check=True, capture_output=True, timeout=240)
    old, new = made(), made()
    headers = headers_of(*rotated([old, made(KeyKind.ED25519)], new, now=now()))
    early, late = (headers_of(new, at=now() + timedelta(minutes=minutes)) for minutes in (-10, 10))

    def case(secret: str, headers: dict[str, str], body: bytes = BODY) -> dict[str, object]:
        return {"secret": secret, "headers": headers, "body": body.decode()}

    vectors = [{"secret": vector["secret"], "body": vector["body"], "sign": vector} for vector in VECTORS]
    refused = [case(made().text, headers), case(new.text, headers, BODY + b" ")]
    aged = [case(new.text, early), case(new.text, late)]
    found = node(
        NODE_REFERENCE, [*vectors, case(new.text, headers), case(old.text, headers), *refused, *aged], tmp_path
    )

    assert found == [
        *[vector["v1"] for vector in VECTORS],
        *[True, True],
        *["No matching signature found"] * 2,
        "Message timestamp too old",
        "Message timestamp too new",
    ]
