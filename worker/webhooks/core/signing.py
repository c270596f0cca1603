"""Webhook signatures as Standard Webhooks 1.0.0 has them: keys and their texts, which keys are live, the three headers.

    webhook-id: msg_01JD…        webhook-timestamp: 1614265330
    webhook-signature: v1,<HMAC-SHA256, base64> v1,<with the key before> v1a,<ed25519, base64>

What is signed is `id.timestamp.body`. Source: https://github.com/standard-webhooks/standard-webhooks, its spec folder.
How ed25519 keys are written is not in it, so Svix's form is used. ed25519 itself is passed in: it needs a library.
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

HMAC_BYTES = (24, 64)  # of a key, by the specification
ED25519_BYTES = 64  # seed (32) and public key (32)
PUBLIC_BYTES = 32
MOST_LIVE = 3
OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)
PUBLIC_PREFIX = "whpk_"
# No full stop, which separates the parts of what is signed; nothing that a header could not carry.
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")

Ed25519 = Callable[[bytes, bytes], bytes]
"""Returns the 64 bytes of a signature, given a key's 64 bytes and the content."""


class KeyKind(StrEnum):
    """How a key signs: `hmac` as v1, with a secret both sides know; `ed25519` as v1a, with one only we know."""

    HMAC = "hmac"
    ED25519 = "ed25519"


PREFIXES = {KeyKind.HMAC: "whsec_", KeyKind.ED25519: "whsk_"}


class BadKey(ValueError):
    """A text or bytes that are no signing key; the sentence never quotes them."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of a receiver, which signs until `expires_at`; None: it is the current one. BadKey for a wrong size."""

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
        """The secret as its owner sees it once: `whsec_…`, or `whsk_…` for ed25519."""
        return PREFIXES[self.kind] + _base64(self.key)

    @property
    def public_text(self) -> str | None:
        """The `whpk_…` that verifies an ed25519 key's signatures and may be published; None for hmac."""
        return PUBLIC_PREFIX + _base64(self.key[-PUBLIC_BYTES:]) if self.kind is KeyKind.ED25519 else None


def read_key(text: str, *, created_at: datetime, expires_at: datetime | None = None) -> SigningKey:
    """Return the key that a text `whsec_…` or `whsk_…` holds; raise BadKey."""
    for kind, prefix in PREFIXES.items():
        if text.startswith(prefix):
            return SigningKey(kind, _decoded(text, prefix), created_at, expires_at)
    if text.startswith(PUBLIC_PREFIX):
        raise BadKey("a whpk_ key is public and cannot sign; give the whsk_ key it belongs to")
    raise BadKey("a signing key begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519); this text does not")


def live(keys: Iterable[SigningKey], now: datetime) -> tuple[SigningKey, ...]:
    """Return the keys that sign at `now`, hmac before ed25519, the newest first, at most three a kind.

    A key signs no more at the very instant of its expires_at. `created_at` only orders: the clock that wrote it may be
    ahead of ours, and a new key that waited for our clock would leave its receiver without a signature.
    """
    signing = [one for one in keys if one.expires_at is None or now < one.expires_at]
    # A current key comes before an expiring one whatever the clocks of two rotations said.
    signing.sort(key=lambda one: (one.expires_at is None, one.created_at), reverse=True)
    return tuple(one for kind in KeyKind for one in [one for one in signing if one.kind is kind][:MOST_LIVE])


def rotated(
    keys: Iterable[SigningKey], new: SigningKey, *, now: datetime, overlap: timedelta = OVERLAP
) -> tuple[SigningKey, ...]:
    """Return a receiver's live keys with `new` as the current one of its kind; the others of it end after `overlap`.

    An overlap of nothing ends them at once (a key that leaked). One that was ending already ends no later for it.
    Raises ValueError for an overlap out of range, or when more than three keys of the kind would sign.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise ValueError(f"the overlap is {overlap}; it must be from nothing to {LONGEST_OVERLAP.days} days")
    end = now + overlap
    ending = (
        replace(one, expires_at=min(one.expires_at or end, end)) if one.kind is new.kind else one
        for one in live(keys, now)
    )
    kept = [one for one in ending if one.expires_at is None or now < one.expires_at]
    same = [one.expires_at for one in kept if one.kind is new.kind and one.expires_at]
    if len(same) >= MOST_LIVE:
        raise ValueError(
            f"{len(same)} {new.kind} keys sign already, which is the most; "
            f"wait until {min(same):%Y-%m-%d %H:%M %Z}, or rotate with an overlap of nothing"
        )
    return (new, *kept)


def signed_content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the bytes that are signed; `timestamp` in Unix seconds. Raises ValueError for an id with a full stop."""
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
    """Return the three headers of an attempt made `at` this time, signed with every key that is live then.

    Signatures are separated by exactly one space: the reference verifier fails at two. Raises ValueError without a live
    key, because an unsigned delivery would teach receivers to accept one.
    """
    signing = live(keys, at)
    if not signing:
        raise ValueError("no key of the receiver is live, so nothing can be signed; give the receiver a new secret")
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
    # Outside the except block, so that no exception with the text in it hangs on ours.
    raise BadKey(f"what follows {prefix} is not base64; give the text as it was shown, whole")
