"""Secrets at rest: the keys that open them, the errors of all others, and no secret in any message."""

import json
import traceback
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet

from worker.webhooks.core.signature import BadKey, KeyKind
from worker.webhooks.vault import (
    BadMasterKeys,
    CannotOpen,
    SecretFault,
    Vault,
    fingerprint,
    import_key,
    key_id,
    new_key,
    new_master_key,
    sign_ed25519,
)

NOW = datetime(2026, 11, 23, 3, 14, 15, tzinfo=UTC)
OLD, NEW = "b2xk" * 10 + "b2w=", "bmV3" * 10 + "bmU="
SECRET = "whsec_geheim"


def fault_of(vault: Vault, token: str, *, receiver: str = "rcv_1", kind: str = "hmac") -> CannotOpen:
    with pytest.raises(CannotOpen) as caught:
        vault.open(receiver, kind, token)
    return caught.value


def test_a_sealed_text_is_opened() -> None:
    vault = Vault([new_master_key()])

    token = vault.seal("rcv_1", KeyKind.HMAC, SECRET)

    assert vault.open("rcv_1", "hmac", token) == SECRET
    assert "geheim" not in token


def test_two_seals_of_one_secret_look_different() -> None:
    vault = Vault([NEW])
    assert vault.seal("rcv_1", "hmac", SECRET) != vault.seal("rcv_1", "hmac", SECRET)


def test_a_new_first_key_seals_and_the_old_one_still_opens() -> None:
    token = Vault([OLD]).seal("rcv_1", "hmac", SECRET)
    both = Vault([NEW, OLD])

    assert both.open("rcv_1", "hmac", token) == SECRET
    assert both.sealed_with(token) == key_id(OLD)
    assert both.sealed_with(both.seal("rcv_1", "hmac", SECRET)) == key_id(NEW) == both.key_ids[0]


def test_a_rotated_token_needs_the_old_key_no_more() -> None:
    both = Vault([NEW, OLD])
    token = Vault([OLD]).seal("rcv_1", "hmac", SECRET)

    again = both.rotate(token)

    assert both.sealed_with(again) == key_id(NEW)
    assert Vault([NEW]).open("rcv_1", "hmac", again) == SECRET
    assert Fernet(NEW).extract_timestamp(again) == Fernet(OLD).extract_timestamp(token)


def test_a_wrong_master_key_is_reported_with_its_id_and_the_remedy() -> None:
    token = Vault([OLD]).seal("rcv_1", "hmac", SECRET)

    error = fault_of(Vault([NEW]), token)

    assert error.fault is SecretFault.WRONG_KEY
    assert str(error) == (
        f"no key of AFTERWORD_SECRET_KEYS ({key_id(NEW)}) opens a secret of receiver rcv_1: the key that sealed it "
        "is missing, or the secret was damaged; add the missing key at the end of AFTERWORD_SECRET_KEYS"
    )
    assert Vault([NEW]).sealed_with(token) is None
    with pytest.raises(CannotOpen, match="opens a stored secret"):
        Vault([NEW]).rotate(token)


def test_a_damaged_token_is_no_other_error() -> None:
    vault = Vault([NEW])
    token = vault.seal("rcv_1", "hmac", SECRET)
    for damaged in ("", "é", token[:-5], token[:40] + ("A" if token[40] != "A" else "B") + token[41:]):
        assert fault_of(vault, damaged).fault is SecretFault.WRONG_KEY


@pytest.mark.parametrize(("receiver", "kind"), [("rcv_2", "hmac"), ("rcv_1", "header")])
def test_a_token_moved_to_another_receiver_or_use_is_refused(receiver: str, kind: str) -> None:
    vault = Vault([NEW])

    error = fault_of(vault, vault.seal("rcv_1", "hmac", SECRET), receiver=receiver, kind=kind)

    assert error.fault is SecretFault.MOVED
    assert str(error) == (
        f"a secret of receiver {receiver} ({kind}) was sealed for receiver rcv_1 (hmac): it was moved or copied in the "
        f"database; give {receiver} a new secret"
    )


@pytest.mark.parametrize(
    "content",
    [
        "geheim",
        '["geheim"]',
        '{"v":2,"receiver":"rcv_1","kind":"hmac","key":"geheim"}',
        '{"v":1,"receiver":"rcv_1","kind":"hmac"}',
        '{"v":1,"receiver":"rcv_1","kind":"hmac","key":7}',
    ],
)
def test_a_sealed_text_of_another_form_is_refused_unshown(content: str) -> None:
    error = fault_of(Vault([NEW]), Fernet(NEW).encrypt(content.encode()).decode())

    assert error.fault is SecretFault.UNKNOWN_FORM
    assert "geheim" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_the_sealed_content_has_the_documented_form() -> None:
    token = Vault([NEW]).seal("rcv_1", KeyKind.HMAC, SECRET)
    content = json.loads(Fernet(NEW).decrypt(token))
    assert content == {"v": 1, "receiver": "rcv_1", "kind": "hmac", "key": SECRET}


def test_a_missing_master_key_is_reported() -> None:
    with pytest.raises(BadMasterKeys, match="AFTERWORD_SECRET_KEYS is not set, but receivers' secrets"):
        Vault([])


@pytest.mark.parametrize("text", ["geheim", "", "gehéim", "\udc80geheim", NEW + NEW, b64encode(b"geheim").decode()])
def test_a_malformed_master_key_is_reported_by_its_place_and_not_shown(text: str) -> None:
    with pytest.raises(BadMasterKeys) as caught:
        Vault([NEW, text])
    assert str(caught.value).startswith("key 2 of AFTERWORD_SECRET_KEYS is not 32 bytes in URL-safe base64")
    assert "geh" not in str(caught.value)
    assert caught.value.__context__ is None


def test_master_keys_that_do_not_fit_the_database_are_reported_at_the_start() -> None:
    Vault([NEW, OLD]).check([key_id(OLD)])
    new, old = key_id(NEW), key_id(OLD)
    with pytest.raises(BadMasterKeys) as caught:
        Vault([NEW]).check([new, old])
    assert str(caught.value) == (
        f"AFTERWORD_SECRET_KEYS holds the keys {new}, but the database holds secrets sealed with {old}; "
        "add the missing keys at the end of AFTERWORD_SECRET_KEYS"
    )


def test_a_vault_shows_its_key_ids_alone() -> None:
    assert repr(Vault([NEW, OLD])) == f"Vault({key_id(NEW)}, {key_id(OLD)})"


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_new_key_is_new_and_can_be_imported_from_its_text(kind: KeyKind) -> None:
    key = new_key(kind, NOW)

    assert key != new_key(kind, NOW)
    assert import_key(key.text, NOW) == key
    assert len(key.key) == (32 if kind is KeyKind.HMAC else 64)


def test_a_pair_whose_halves_do_not_match_is_refused() -> None:
    one, other = (new_key(KeyKind.ED25519, NOW).key for _ in range(2))
    text = "whsk_" + b64encode(one[:32] + other[32:]).decode()

    with pytest.raises(BadKey, match="the two halves of the whsk_ key do not belong together"):
        import_key(text, NOW)


def test_a_signature_is_made_with_the_seed() -> None:
    key = new_key(KeyKind.ED25519, NOW)
    assert sign_ed25519(key.key, b"x") == sign_ed25519(key.key, b"x") != sign_ed25519(key.key, b"y")


def test_the_holder_of_a_secret_can_compute_its_fingerprint() -> None:
    # printf %s "$SECRET" | sha256sum
    assert fingerprint("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD") == "2dd745ff"
