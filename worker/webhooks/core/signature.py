"""Webhook signatures of Standard Webhooks 1.0.0: keys and their texts, live keys, the three headers.

    webhook-id: msg_01JD…        webhook-timestamp: 1614265330
    webhook-signature: v1,<HMAC-SHA256, base64> v1,<with the previous key> v1a,<ed25519, base64>

The signed content is `id.timestamp.body`. Source: https://github.com/standard-webhooks/standard-webhooks, folder spec.
It defines no text form of ed25519 keys, so we use Svix's. The ed25519 function is an argument, because it needs a
library.
"""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

HMAC_BYTES = (24, 64)  # the shortest and longest key of the specification
ED25519_BYTES = 64  # seed (32) and public key (32)
PUBLIC_BYTES = 32
MOST_LIVE = 3
OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)
PUBLIC_PREFIX = "whpk_"
# No full stop, because it separates the parts of the signed content; only characters that a header can carry.
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")

Ed25519 = Callable[[bytes, bytes], bytes]
"""Takes a key's 64 bytes and the content, returns the signature's 64 bytes."""


class KeyKind(StrEnum):
    """`hmac` signs as v1, with a secret that both sides know; `ed25519` as v1a, with a secret that only we know."""

    HMAC = "hmac"
    ED25519 = "ed25519"


PREFIXES = {KeyKind.HMAC: "whsec_", KeyKind.ED25519: "whsk_"}


class BadKey(ValueError):
    """The text or bytes are not a signing key. The sentence never quotes them."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A receiver's key. It signs until `expires_at`; None: it is the current key. Raises BadKey for a wrong size."""

    kind: KeyKind
    key: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        least, most = HMAC_BYTES if self.kind is KeyKind.HMAC else (ED25519_BYTES, ED25519_BYTES)
        if not least <= len(self.key) <= most:
            wanted = f"{least} to {most}" if least < most else f"{most} (seed and public key)"
            raise BadKey(f"the {self.kind} key has {len(self.key)} bytes; it must have {wanted}")

    @property
    def text(self) -> str:
        """The secret in its text form: `whsec_…`, or `whsk_…` for ed25519."""
        return PREFIXES[self.kind] + _base64(self.key)

    @property
    def public_text(self) -> str | None:
        """The public key `whpk_…` that verifies an ed25519 key's signatures; None for hmac."""
        return PUBLIC_PREFIX + _base64(self.key[-PUBLIC_BYTES:]) if self.kind is KeyKind.ED25519 else None


def read_key(text: str, *, created_at: datetime, expires_at: datetime | None = None) -> SigningKey:
    """Return the key of a text `whsec_…` or `whsk_…`. Raises BadKey."""
    for kind, prefix in PREFIXES.items():
        if text.startswith(prefix):
            return SigningKey(kind, _decoded(text, prefix), created_at, expires_at)
    if text.startswith(PUBLIC_PREFIX):
        raise BadKey("a whpk_ key is public and cannot sign; give its whsk_ key")
    raise BadKey("a signing key begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519); this text does not")


def live(keys: Iterable[SigningKey], now: datetime) -> tuple[SigningKey, ...]:
    """Return the keys that sign at `now`, hmac before ed25519, the newest first, at most three of each kind.

    At `expires_at` itself a key no longer signs. `created_at` only gives the order: the clock that wrote it may be
    ahead of ours, and if a new key waited for our clock, its receiver would get no signature.
    """
    signing = [key for key in keys if key.expires_at is None or now < key.expires_at]
    # A current key comes before an expiring key, even if the clocks of their rotations differ.
    signing.sort(key=lambda key: (key.expires_at is None, key.created_at), reverse=True)
    return tuple(key for kind in KeyKind for key in [key for key in signing if key.kind is kind][:MOST_LIVE])


def rotated(
    keys: Iterable[SigningKey], new: SigningKey, *, now: datetime, overlap: timedelta = OVERLAP
) -> tuple[SigningKey, ...]:
    """Return a receiver's live keys with `new` as the current key; other keys of its kind expire after `overlap`.

    An overlap of 0 ends them at once (for a leaked key). A key that already expires earlier keeps its time.
    Raises ValueError for an overlap out of range, or when more than three keys of the kind would sign.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise ValueError(f"the overlap is {overlap}; it must be from 0 to {LONGEST_OVERLAP.days} days")
    end = now + overlap
    ending = (
        replace(key, expires_at=min(key.expires_at or end, end)) if key.kind is new.kind else key
        for key in live(keys, now)
    )
    kept = [key for key in ending if key.expires_at is None or now < key.expires_at]
    ends = [key.expires_at for key in kept if key.kind is new.kind and key.expires_at]
    if len(ends) >= MOST_LIVE:
        raise ValueError(
            f"{len(ends)} {new.kind} keys sign already, and {MOST_LIVE} is the maximum; "
            f"wait until {min(ends):%Y-%m-%d %H:%M %Z}, or rotate with an overlap of 0"
        )
    return (new, *kept)


def signed_content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the bytes to sign; `timestamp` in Unix seconds. Raises ValueError for an id with a full stop."""
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"the message id is {message_id!r}; it must be 1 to 255 of A-Z, a-z, 0-9, '_' and '-'")
    return b"%s.%d.%s" % (message_id.encode(), timestamp, body)


def signature(key: SigningKey, content: bytes, ed25519: Ed25519) -> str:
    """Return one signature: `v1,…` or `v1a,…`."""
    if key.kind is KeyKind.HMAC:
        return f"v1,{_base64(hmac.digest(key.key, content, hashlib.sha256))}"
    return f"v1a,{_base64(ed25519(key.key, content))}"


def signed_headers(
    keys: Iterable[SigningKey], message_id: str, body: bytes, *, at: datetime, ed25519: Ed25519
) -> dict[str, str]:
    """Return the three headers of an attempt at the time `at`, signed with every key that is live then.

    Exactly one space separates signatures: the reference verifier fails at two. Raises ValueError without a live key,
    because receivers must not learn to accept unsigned webhooks.
    """
    signing = live(keys, at)
    if not signing:
        raise ValueError("the receiver has no live key, so nothing can be signed; give the receiver a new secret")
    timestamp = int(at.timestamp())
    content = signed_content(message_id, timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, content, ed25519) for key in signing),
    }


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def _decoded(text: str, prefix: str) -> bytes:
    try:
        return b64decode(text.removeprefix(prefix).encode("ascii"), validate=True)
    except (NotBase64, UnicodeEncodeError):
        pass
    # Outside the except block: inside, Python would attach the first exception, which holds the text, to ours.
    raise BadKey(f"the text after {prefix} is not base64; give the whole text as it was shown")
