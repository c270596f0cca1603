"""Seals secrets with AFTERWORD_SECRET_KEYS for storage and opens them. The only module that imports cryptography.

A sealed secret is a Fernet token around `{"v":1,"receiver":…,"kind":…,"key":…}`. Fernet authenticates no context, so
the token contains the receiver and the kind: a copy of it in another receiver's row does not open.

No error and no repr holds a secret. Errors are raised outside the except block: inside, Python would attach the first
error, which may hold a secret, as context.
"""

import hashlib
import json
import secrets
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.webhooks.core.signature import PUBLIC_BYTES, BadKey, KeyKind, SigningKey, read_key

SETTING = "AFTERWORD_SECRET_KEYS"
VERSION = 1
NEW_SECRET_BYTES = 32
MASTER_BYTES = 32
MAKE_ONE = "make one with `openssl rand -base64 32 | tr +/ -_`"


class BadMasterKeys(ValueError):
    """The keys of AFTERWORD_SECRET_KEYS are missing or malformed, or the database was sealed with other keys."""


class SecretFault(StrEnum):
    """The reason why a sealed secret cannot be opened: no key fits, another receiver's token, an unknown form."""

    WRONG_KEY = "wrong_key"
    MOVED = "moved"
    UNKNOWN_FORM = "unknown_form"


class CannotOpen(ValueError):
    """A sealed secret cannot be opened; `fault` is the reason in a word, the text a sentence."""

    def __init__(self, fault: SecretFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class Vault:
    """Seals with the first master key, opens with any of them. Raises BadMasterKeys with one sentence."""

    def __init__(self, master_keys: Sequence[str]) -> None:
        if not master_keys:
            raise BadMasterKeys(f"{SETTING} is not set, but receivers' secrets are sealed with its keys; {MAKE_ONE}")
        fernets = [_fernet(text, place) for place, text in enumerate(master_keys, 1)]
        self._by_id = {key_id(text): fernet for text, fernet in zip(master_keys, fernets, strict=True)}
        self._all = MultiFernet(list(self._by_id.values()))

    def __repr__(self) -> str:
        return f"Vault({', '.join(self._by_id)})"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the master keys, the sealing key first. They are not secret."""
        return tuple(self._by_id)

    def seal(self, receiver_id: str, kind: str, value: str) -> str:
        """Return the sealed token, ASCII text; `open` needs the same receiver and kind."""
        content = {"v": VERSION, "receiver": receiver_id, "kind": str(kind), "key": value}
        return self._all.encrypt(json.dumps(content, separators=(",", ":")).encode()).decode("ascii")

    def open(self, receiver_id: str, kind: str, token: str) -> str:
        """Return the sealed value. Raises CannotOpen. Open it for one attempt and do not keep it."""
        content = self._open(token, f"receiver {receiver_id}")
        if (content["receiver"], content["kind"]) != (receiver_id, str(kind)):
            raise CannotOpen(
                SecretFault.MOVED,
                f"a secret of receiver {receiver_id} ({kind}) was sealed for receiver {content['receiver']} "
                f"({content['kind']}): it was moved or copied in the database; give {receiver_id} a new secret",
            )
        return content["key"]

    def rotate(self, token: str) -> str:
        """Return the token sealed again with the first master key; its timestamp stays. Raises CannotOpen."""
        try:
            return self._all.rotate(token.encode()).decode("ascii")
        except InvalidToken:
            pass
        raise self._wrong_key("a stored secret")

    def sealed_with(self, token: str) -> str | None:
        """Return the id of the master key that opens a token, or None; if it is not the first, `rotate` is due."""
        for known_id, fernet in self._by_id.items():
            try:
                fernet.decrypt(token.encode())
            except InvalidToken:
                continue
            return known_id
        return None

    def check(self, stored_ids: Iterable[str]) -> None:
        """Raise BadMasterKeys if the database holds secrets that were sealed with a master key we do not have."""
        if missing := sorted(set(stored_ids) - set(self._by_id)):
            raise BadMasterKeys(
                f"{SETTING} holds the keys {', '.join(self._by_id)}, but the database holds secrets sealed with "
                f"{', '.join(missing)}; add the missing keys at the end of {SETTING}"
            )

    def _open(self, token: str, owner: str) -> dict[str, str]:
        try:
            text = self._all.decrypt(token.encode())
        except InvalidToken:
            text = None
        if text is None:
            raise self._wrong_key(f"a secret of {owner}")
        content = _content(text)
        if content is None:
            message = f"a secret of {owner} has a form that this worker does not know; run the release that sealed it"
            raise CannotOpen(SecretFault.UNKNOWN_FORM, message)
        return content

    def _wrong_key(self, secret: str) -> CannotOpen:
        return CannotOpen(
            SecretFault.WRONG_KEY,
            f"no key of {SETTING} ({', '.join(self._by_id)}) opens {secret}: the key that sealed it is missing, or the "
            f"secret was damaged; add the missing key at the end of {SETTING}",
        )


def key_id(master_key: str) -> str:
    """Return the public id of a master key: the first 8 hex digits of its bytes' SHA-256."""
    return hashlib.sha256(urlsafe_b64decode(master_key)).hexdigest()[:8]


def new_master_key() -> str:
    """Return a new key for AFTERWORD_SECRET_KEYS."""
    return Fernet.generate_key().decode("ascii")


def new_key(kind: KeyKind, created_at: datetime) -> SigningKey:
    """Return a new signing key: 32 random bytes, or an ed25519 pair."""
    if kind is KeyKind.HMAC:
        return SigningKey(kind, secrets.token_bytes(NEW_SECRET_BYTES), created_at)
    private = Ed25519PrivateKey.generate()
    return SigningKey(kind, private.private_bytes_raw() + private.public_key().public_bytes_raw(), created_at)


def import_key(text: str, created_at: datetime) -> SigningKey:
    """Return the signing key of a text. Raises BadKey, also for an ed25519 pair with halves that do not match."""
    key = read_key(text, created_at=created_at)
    if key.kind is KeyKind.ED25519:
        seed, public = key.key[:-PUBLIC_BYTES], key.key[-PUBLIC_BYTES:]
        if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != public:
            raise BadKey("the two halves of the whsk_ key do not belong together; export the key again")
    return key


def sign_ed25519(key: bytes, content: bytes) -> bytes:
    """Return the signature of `content`, 64 bytes; `key` is a seed followed by its public key."""
    return Ed25519PrivateKey.from_private_bytes(key[:-PUBLIC_BYTES]).sign(content)


def fingerprint(secret: str) -> str:
    """Return the first 8 hex digits of a secret text's SHA-256: enough to compare two secrets without showing them.

    `printf %s "$SECRET" | sha256sum` prints the same.
    """
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def _fernet(text: str, place: int) -> Fernet:
    # Fernet itself ignores characters outside base64 and text after the padding.
    try:
        if len(b64decode(text, altchars=b"-_", validate=True)) == MASTER_BYTES:
            return Fernet(text)
    except ValueError:
        pass
    raise BadMasterKeys(f"key {place} of {SETTING} is not 32 bytes in URL-safe base64, 44 characters; {MAKE_ONE}")


def _content(text: bytes) -> dict[str, str] | None:
    try:
        content = json.loads(text)
    except ValueError:  # json's error keeps the whole secret text, so it must not leave this function
        return None
    if not isinstance(content, dict) or content.pop("v", None) != VERSION:
        return None
    is_known = content.keys() == {"receiver", "kind", "key"} and all(
        isinstance(value, str) for value in content.values()
    )
    return content if is_known else None
