"""A receiver's secrets as plain values: sealed and opened again, and never shown in an error or a repr."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from worker.webhooks import sealed_fields
from worker.webhooks.core.signature import KeyKind, rotated
from worker.webhooks.vault import CannotOpen, SecretFault, Vault, new_key, new_master_key

NOW = datetime(2026, 11, 23, 3, 14, 15, 123456, tzinfo=UTC)
URL = "https://a.example/hook"
RECEIVER = "8d7a4c1e-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def vault() -> Vault:
    return Vault([new_master_key()])


def test_new_keys_are_one_of_each_kind_and_show_the_shared_secret_only() -> None:
    keys, shown = sealed_fields.new_keys(NOW)

    assert [key.kind for key in keys] == [KeyKind.HMAC, KeyKind.ED25519]
    assert shown == (keys[0].text,)
    assert sealed_fields.public_text(keys) == keys[1].public_text


def test_keys_are_opened_as_they_were_sealed_with_their_times(vault: Vault) -> None:
    keys, _ = sealed_fields.new_keys(NOW)
    keys = rotated(keys, new_key(KeyKind.HMAC, NOW), now=NOW, overlap=timedelta(hours=1))

    assert sealed_fields.keys_of(vault, RECEIVER, sealed_fields.seal_keys(vault, RECEIVER, keys)) == keys
    assert sorted(key.expires_at is None for key in keys) == [False, True, True]


def test_a_receiver_without_keys_or_headers_yet_has_none(vault: Vault) -> None:
    assert sealed_fields.keys_of(vault, RECEIVER, None) == ()
    assert sealed_fields.headers_of(vault, RECEIVER, None, url=URL) == {}
    assert sealed_fields.seal_headers(vault, RECEIVER, {}, url=URL) is None
    assert sealed_fields.public_text(()) is None


def test_headers_are_opened_as_they_were_sealed(vault: Vault) -> None:
    sealed = sealed_fields.seal_headers(vault, RECEIVER, {"Authorization": "Bearer geheim"}, url=URL)

    assert sealed is not None
    assert "geheim" not in sealed
    for same in (URL, "https://A.example:443/other?x=1"):
        assert sealed_fields.headers_of(vault, RECEIVER, sealed, url=same) == {"Authorization": "Bearer geheim"}


@pytest.mark.parametrize(
    "other", ["https://a.example:8443/", "http://a.example/", "https://b.example/", "https://a.example.b.example/"]
)
def test_headers_are_not_opened_for_another_origin(vault: Vault, other: str) -> None:
    sealed = sealed_fields.seal_headers(vault, RECEIVER, {"Authorization": "Bearer geheim"}, url=URL)

    with pytest.raises(CannotOpen, match=r"were sealed for https://a\.example:443") as refused:
        sealed_fields.headers_of(vault, RECEIVER, sealed, url=other)
    assert refused.value.fault is SecretFault.MOVED
    assert "geheim" not in str(refused.value)


def test_headers_of_release_0_1_0_are_opened_and_can_be_bound(vault: Vault) -> None:
    old = vault.seal(RECEIVER, sealed_fields.HEADERS, '{"headers": "a name as good as any"}')
    assert sealed_fields.headers_of(vault, RECEIVER, old, url=URL) == {"headers": "a name as good as any"}

    new = sealed_fields.bind_headers(vault, RECEIVER, old, url=URL)
    assert new is not None
    assert sealed_fields.headers_of(vault, RECEIVER, new, url=URL) == {"headers": "a name as good as any"}
    assert sealed_fields.bind_headers(vault, RECEIVER, new, url=URL) is None
    with pytest.raises(CannotOpen):
        sealed_fields.headers_of(vault, RECEIVER, new, url="https://b.example/")


def test_a_query_is_hidden_and_a_plain_url_is_not_sealed(vault: Vault) -> None:
    shown, sealed = sealed_fields.seal_url(vault, RECEIVER, "https://a.example/hook?token=geheim")

    assert shown == "https://a.example/hook"
    assert sealed_fields.url_of(vault, RECEIVER, shown, sealed) == "https://a.example/hook?token=geheim"
    assert sealed_fields.seal_url(vault, RECEIVER, "https://a.example/hook") == ("https://a.example/hook", None)
    assert sealed_fields.url_of(vault, RECEIVER, "https://a.example/hook", None) == "https://a.example/hook"


def test_the_public_key_is_that_of_the_key_that_stays(vault: Vault) -> None:
    keys, _ = sealed_fields.new_keys(NOW)
    new = new_key(KeyKind.ED25519, NOW - timedelta(days=1))  # its clock was slow

    assert sealed_fields.public_text(rotated(keys, new, now=NOW)) == new.public_text


@pytest.mark.parametrize(
    "content",
    [
        "geheim",
        json.dumps({"text": "geheim"}),
        json.dumps([{"text": "whsec_geheim!"}]),
        json.dumps(["geheim"]),
        json.dumps([{"text": 7}]),
    ],
    ids=["no-json", "no-list", "no-key", "no-object", "no-text"],
)
def test_an_unknown_form_is_a_sentence_without_the_secret(vault: Vault, content: str) -> None:
    with pytest.raises(CannotOpen) as caught:
        sealed_fields.keys_of(vault, RECEIVER, vault.seal(RECEIVER, sealed_fields.KEYS, content))

    assert caught.value.fault is SecretFault.UNKNOWN_FORM
    assert caught.value.__context__ is None
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("content", ["geheim", '["geheim"]', '{"X": 7}'], ids=["no-json", "no-object", "no-text"])
def test_headers_of_an_unknown_form_are_a_sentence_too(vault: Vault, content: str) -> None:
    with pytest.raises(CannotOpen) as caught:
        sealed_fields.headers_of(vault, RECEIVER, vault.seal(RECEIVER, sealed_fields.HEADERS, content), url=URL)

    assert (caught.value.fault, caught.value.__context__) == (SecretFault.UNKNOWN_FORM, None)


def test_a_secret_sealed_for_another_receiver_or_use_is_not_opened(vault: Vault) -> None:
    sealed = sealed_fields.seal_headers(vault, RECEIVER, {"X-Key": "geheim"}, url=URL)

    for receiver, opened in (
        (RECEIVER, sealed_fields.keys_of),
        ("another", partial(sealed_fields.headers_of, url=URL)),
    ):
        with pytest.raises(CannotOpen) as caught:
            opened(vault, receiver, sealed)
        assert caught.value.fault is SecretFault.MOVED
