"""Verifies that a webhook is from Afterword, unchanged and recent, and returns its event.

Signatures follow Standard Webhooks 1.0.0 (https://www.standardwebhooks.com): HMAC-SHA256 or ed25519 over
`id.timestamp.body`. Verify the bytes as received: JSON that was parsed and written again has other bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn, Union

from afterword.errors import WebhookVerificationError

Headers = Union[Mapping[Any, Any], Iterable[tuple[Any, Any]]]
Secret = Union[str, Iterable[str]]
# check(version, text) returns True if that signature is right for the content.
Check = Callable[[str, str], bool]

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_seconds = re.compile(r"[0-9]{1,12}")
_HMAC_BYTES = range(24, 65)
_PUBLIC_BYTES = 32
_CLOCK = "check the clock of this machine"


def verify_webhook(
    body: bytes | str, headers: Headers, secret: Secret, *, tolerance_s: float = 300, now: float | None = None
) -> dict[str, Any]:
    """Return the verified event in `body`, such as `{"id": …, "type": "job.completed", "timestamp": …, "data": …}`.

    `body`: the request's body as received, before any parsing.
    `headers`: a mapping or pairs; names in any case.
    `secret`: the receiver's `whsec_…`, its public key `whpk_…` (needs the package `cryptography`), or several of them
    during a rotation.
    `tolerance_s`: the largest difference between `webhook-timestamp` and `now`, in seconds, in either direction.
    `now`: Unix seconds; default: the clock of this machine.

    Raises WebhookVerificationError, and no other exception, for any arguments.
    """
    content = _bytes(body)
    verifiers = [_verifier(text) for text in _secrets(secret)]
    found = _lower(headers)
    message_id, timestamp, signatures = (_header(found, name) for name in (ID, TIMESTAMP, SIGNATURE))
    _check_age(timestamp, tolerance_s, time.time() if now is None else now)
    signed = b".".join((_encoded(message_id), _encoded(timestamp), content))
    checks = [verifier(signed) for verifier in verifiers]
    # Signatures of an unknown version are skipped, because a later release may add one.
    pairs = [signature.partition(",") for signature in signatures.split()]
    if not any(check(version, text) for check in checks for version, _, text in pairs):
        _refuse(
            "no_matching_signature",
            f"none of the {len(pairs)} signatures matches this body with {_counted(len(checks), 'secret')}; verify "
            f"the bytes as received, with the secret of this receiver",
        )
    return _event(content)


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return _encoded(body)
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    _refuse("not_json", f"body is of type {type(body).__name__}; give the bytes as received, before any parsing")


def _encoded(text: str) -> bytes:
    # A lone surrogate must not raise here: its bytes match no signature, so the webhook is refused.
    return text.encode("utf-8", "surrogatepass")


def _secrets(secret: object) -> list[str]:
    if not secret:
        _refuse("bad_secret", "no secret is given; set the variable that should hold it")
    several = [secret] if isinstance(secret, (str, bytes)) else secret
    if not isinstance(several, Iterable):
        _refuse("bad_secret", f"secret is of type {type(secret).__name__}; give a text such as whsec_…, or several")
    texts = [_text(item).strip() for item in several]
    return texts or _refuse("bad_secret", "no secret is given, because the list is empty; give at least one")


def _lower(headers: Any) -> dict[str, str]:
    """Return the headers with lower-case names. Values of a repeated name are joined (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    try:
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            lower = _text(name).lower()
            for item in value if isinstance(value, (list, tuple)) else [value]:
                found[lower] = f"{found[lower]}, {_text(item)}" if lower in found else _text(item)
    except Exception as error:
        _refuse("missing_header", f"headers of type {type(headers).__name__} cannot be read ({error}); give a mapping")
    return found


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _header(found: dict[str, str], name: str) -> str:
    value = found.get(name, "").strip()
    return value or _refuse("missing_header", f"the header {name} is missing; check that this request is a webhook")


def _check_age(timestamp: str, tolerance_s: float, now: float) -> None:
    if not _seconds.fullmatch(timestamp):
        _refuse("bad_timestamp", f"{TIMESTAMP} is {timestamp[:40]!r}; it must be whole Unix seconds")
    age_s = now - int(timestamp)
    # `not <=` instead of `>`, because a tolerance of NaN must refuse.
    if not age_s <= tolerance_s:
        _refuse("too_old", f"the webhook is {age_s:.0f} s old, at most {tolerance_s:g} s are allowed; {_CLOCK}")
    if not -age_s <= tolerance_s:
        _refuse(
            "too_new", f"the webhook is {-age_s:.0f} s in the future, at most {tolerance_s:g} s are allowed; {_CLOCK}"
        )


def _verifier(secret: str) -> Callable[[bytes], Check]:
    if secret.startswith("whsec_"):
        return partial(_check_hmac, _decoded(secret, "whsec_", _HMAC_BYTES))
    if secret.startswith("whpk_"):
        return _ed25519_verifier(_decoded(secret, "whpk_", range(_PUBLIC_BYTES, _PUBLIC_BYTES + 1)))
    if secret.startswith("whsk_"):
        _refuse("bad_secret", "the secret is the sender's private key whsk_…; use its public key whpk_…")
    _refuse(
        "bad_secret", "the secret begins neither with whsec_ nor with whpk_; give it as it was shown, prefix included"
    )


def _check_hmac(key: bytes, signed: bytes) -> Check:
    expected = b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    return lambda version, text: version == "v1" and hmac.compare_digest(expected, _encoded(text))


def _ed25519_verifier(public: bytes) -> Callable[[bytes], Check]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        _refuse("bad_secret", "a whpk_ key needs a package; run: pip install cryptography, or use the whsec_ secret")
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
    except Exception as error:  # an OpenSSL without ed25519
        _refuse("bad_secret", f"the whpk_ key cannot be used ({error}); use the whsec_ secret")

    def check(signed: bytes, version: str, text: str) -> bool:
        if version != "v1a":
            return False
        try:
            key.verify(b64decode(_encoded(text), validate=True), signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    return lambda signed: partial(check, signed)


def _decoded(secret: str, prefix: str, sizes: range) -> bytes:
    try:
        key = b64decode(_encoded(secret[len(prefix) :]), validate=True)
    except ValueError:
        _refuse("bad_secret", f"the text after {prefix} is not base64; give the whole secret as it was shown")
    if len(key) not in sizes:
        _refuse("bad_secret", f"the {prefix} secret has {len(key)} bytes; give the whole secret as it was shown")
    return key


def _event(content: bytes) -> dict[str, Any]:
    try:
        event = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse("not_json", f"the body is signed but is not JSON: {error}")
    if not isinstance(event, dict):
        _refuse("not_json", f"the body is signed but is a {type(event).__name__}; an event is an object")
    return event


def _counted(count: int, noun: str) -> str:
    return f"this {noun}" if count == 1 else f"these {count} {noun}s"


def _refuse(reason: str, message: str) -> NoReturn:
    raise WebhookVerificationError(message, reason) from None
