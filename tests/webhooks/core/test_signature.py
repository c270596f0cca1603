"""Webhook signatures: test vectors, the text form of keys, live keys and their rotation."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worker.webhooks.core.signature import (
    BadKey,
    KeyKind,
    SigningKey,
    live,
    read_key,
    rotated,
    signature,
    signed_content,
    signed_headers,
)
from worker.webhooks.vault import sign_ed25519

VECTORS = json.loads((Path(__file__).parent / "signature_vectors.json").read_text())
NOW = datetime(2026, 11, 23, 3, 14, 15, 900_000, tzinfo=UTC)
HOUR = timedelta(hours=1)


def key(
    mark: int, *, kind: KeyKind = KeyKind.HMAC, age: timedelta = HOUR, ends_in: timedelta | None = None
) -> SigningKey:
    content = bytes([mark]) * (32 if kind is KeyKind.HMAC else 64)
    return SigningKey(kind, content, NOW - age, None if ends_in is None else NOW + ends_in)


def marks(keys: tuple[SigningKey, ...]) -> list[int]:
    return [one.key[0] for one in keys]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_is_signed_as_it_says(vector: dict[str, Any]) -> None:
    content = signed_content(vector["id"], vector["timestamp"], vector["body"].encode())
    secret, private = (read_key(vector[name], created_at=NOW) for name in ("secret", "private_key"))

    assert signature(secret, content, sign_ed25519) == vector["v1"]
    assert signature(private, content, sign_ed25519) == vector["v1a"]
    assert private.public_text == vector["public_key"]


def test_ed25519_signs_as_in_rfc_8032() -> None:
    # Section 7.1, test 3.
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    public = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    assert sign_ed25519(seed + public, b"\xaf\x82").hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_key_reads_its_own_text(vector: dict[str, Any]) -> None:
    for text in (vector["secret"], vector["private_key"]):
        assert read_key(text, created_at=NOW).text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519)"),
        ("geheim", "begins with whsec_"),
        ("whsec_geheim!", "the text after whsec_ is not base64"),
        ("whsec_gehéim==", "the text after whsec_ is not base64"),
        ("whsec_\udc80", "the text after whsec_ is not base64"),
        ("whsec_!" + "Z2Vo" * 10, "the text after whsec_ is not base64"),
        ("whsec_Z2VoZWlt", "has 6 bytes; it must have 24 to 64"),
        ("whsec_" + "Z2Vo" * 22, "has 66 bytes; it must have 24 to 64"),
        ("whsk_" + "Z2Vo" * 11, "has 33 bytes; it must have 64 (seed and public key)"),
        ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", "is public and cannot sign"),
    ],
)
def test_a_text_that_is_no_key_is_refused_unshown(text: str, reason: str) -> None:
    with pytest.raises(BadKey) as caught:
        read_key(text, created_at=NOW)
    assert reason in str(caught.value)
    assert "geh" not in str(caught.value)
    assert "Z2Vo" not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_bytes_of_a_key_are_in_no_repr() -> None:
    assert "\\x07" not in repr(key(7))
    assert key(7).text not in repr(key(7))


def test_only_an_ed25519_key_has_a_public_text() -> None:
    assert key(7).public_text is None


def test_a_key_is_live_to_the_instant_it_expires() -> None:
    old = key(1, ends_in=timedelta(0))

    assert live([old], NOW - timedelta(microseconds=1)) == (old,)
    assert live([old], NOW) == ()


def test_live_keys_come_with_the_current_one_first_and_hmac_before_ed25519() -> None:
    keys = [
        key(1, kind=KeyKind.ED25519, ends_in=HOUR),
        key(2, age=3 * HOUR, ends_in=HOUR),
        key(3, kind=KeyKind.ED25519),
        key(4, age=2 * HOUR, ends_in=HOUR),
        key(5, age=4 * HOUR),
    ]

    assert marks(live(keys, NOW)) == [5, 4, 2, 3, 1]


def test_a_key_made_by_a_clock_ahead_of_ours_signs_at_once() -> None:
    assert marks(live([key(1, age=-HOUR)], NOW)) == [1]


def test_more_than_three_keys_of_a_kind_never_sign() -> None:
    keys = [key(mark, age=mark * HOUR, ends_in=HOUR) for mark in range(1, 6)]

    assert marks(live(keys, NOW)) == [1, 2, 3]


def test_a_rotation_leaves_the_old_key_for_a_day_and_the_other_kind_alone() -> None:
    old, other = key(1), key(2, kind=KeyKind.ED25519)

    new, ending, kept = rotated([old, other], key(3, age=timedelta(0)), now=NOW)

    assert (new.key[0], new.expires_at) == (3, None)
    assert (ending.key[0], ending.expires_at) == (1, NOW + 24 * HOUR)
    assert kept == other


def test_a_second_rotation_does_not_lengthen_the_life_of_the_first_key() -> None:
    keys = rotated([key(1, ends_in=HOUR), key(2)], key(3), now=NOW, overlap=2 * HOUR)

    assert {one.key[0]: one.expires_at for one in keys} == {3: None, 2: NOW + 2 * HOUR, 1: NOW + HOUR}


def test_a_rotation_without_overlap_ends_every_old_key_at_once() -> None:
    keys = [key(mark, ends_in=mark * HOUR) for mark in (1, 2)] + [key(3)]

    assert marks(rotated(keys, key(4), now=NOW, overlap=timedelta(0))) == [4]


def test_a_fourth_live_key_is_refused_with_the_ways_out() -> None:
    keys = [key(1, ends_in=HOUR), key(2, ends_in=2 * HOUR), key(3)]

    with pytest.raises(ValueError, match="wait until 2026-11-23 04:14 UTC, or rotate with an overlap of 0"):
        rotated(keys, key(4), now=NOW)


@pytest.mark.parametrize("overlap", [timedelta(microseconds=-1), timedelta(days=7, microseconds=1)])
def test_an_overlap_out_of_range_is_refused(overlap: timedelta) -> None:
    with pytest.raises(ValueError, match="from 0 to 7 days"):
        rotated([key(1)], key(2), now=NOW, overlap=overlap)


def test_the_headers_carry_every_live_key_with_exactly_one_space() -> None:
    keys = [key(1), key(2, ends_in=HOUR), key(3, ends_in=-HOUR), key(4, kind=KeyKind.ED25519)]

    headers = signed_headers(keys, "msg_1", b"{}", at=NOW, ed25519=sign_ed25519)

    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    signatures = headers["webhook-signature"].split(" ")
    assert [one.partition(",")[0] for one in signatures] == ["v1", "v1", "v1a"]
    assert all(len(one) == (47 if one.startswith("v1,") else 92) for one in signatures)


@pytest.mark.parametrize("message_id", ["", "msg.1", "msg 1", "msg\r\n", "m" * 256, "msg_ä"])
def test_an_id_that_could_be_read_in_two_ways_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="the message id is"):
        signed_headers([key(1)], message_id, b"{}", at=NOW, ed25519=sign_ed25519)


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="the receiver has no live key"):
        signed_headers([key(1, ends_in=-HOUR)], "msg_1", b"{}", at=NOW, ed25519=sign_ed25519)
