"""verify_webhook accepts genuine webhooks; every failure is a WebhookVerificationError with a reason and a sentence."""

import pickle
import re
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from email.message import Message
from http.server import HTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterword import WebhookVerificationError, verify_webhook
from tests.producers.made import ROOT
from tests.producers.signed import BODY, EVENT, headers_of, made, now, public
from worker.webhooks.core.signature import KeyKind

KEY, PAIR = made(), made(KeyKind.ED25519)
HEADERS = headers_of(KEY, PAIR)
MAC, PAIRED = (signature.partition(",")[2] for signature in HEADERS["webhook-signature"].split())
AT = int(HEADERS["webhook-timestamp"])
PAGE = ROOT / "api_contracts" / "README.md"


def refusal(
    body: Any = BODY, headers: Any = HEADERS, secret: Any = KEY.text, **options: Any
) -> WebhookVerificationError:
    with pytest.raises(WebhookVerificationError) as caught:
        verify_webhook(body, headers, secret, **({"now": AT} | options))
    return caught.value


def message() -> Message:
    made = Message()
    for name, value in HEADERS.items():
        made[name.title()] = value
    return made


@pytest.mark.parametrize(
    "headers",
    [
        {name.upper(): value for name, value in HEADERS.items()},
        [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        iter(list(HEADERS.items())),
        {name: [value] for name, value in HEADERS.items()} | {"X-Other": None},
        message(),
    ],
    ids=["upper case", "pairs of bytes, as ASGI has them", "an iterator", "lists of values", "http.server"],
)
def test_headers_are_read_as_any_framework_has_them(headers: Any) -> None:
    assert verify_webhook(BODY, headers, KEY.text, now=AT) == EVENT


@pytest.mark.parametrize(
    "body", [BODY, BODY.decode(), bytearray(BODY), memoryview(BODY)], ids=lambda body: type(body).__name__
)
def test_a_body_is_bytes_or_their_text(body: Any) -> None:
    assert verify_webhook(body, HEADERS, KEY.text, now=AT) == EVENT


@pytest.mark.parametrize(
    "secret",
    [f" {KEY.text}\n", KEY.text.encode(), [made().text, KEY.text], iter((public(PAIR), made().text)), {public(PAIR)}],
    ids=["with a line break", "bytes", "the second of two", "an iterator", "a set"],
)
def test_a_secret_is_one_text_or_several(secret: Any) -> None:
    assert verify_webhook(BODY, HEADERS, secret, now=AT) == EVENT


def test_signatures_split_over_two_headers_are_both_looked_at() -> None:
    first, second = HEADERS["webhook-signature"].split()
    pairs = [*HEADERS.items(), ("Webhook-Signature", second)]
    pairs[2] = ("webhook-signature", first)

    assert verify_webhook(BODY, pairs, public(PAIR), now=AT) == EVENT


@pytest.mark.parametrize(
    ("age_s", "reason"), [(-301, "too_new"), (-300, None), (0, None), (300, None), (300.1, "too_old")]
)
def test_the_tolerance_is_five_minutes_both_ways(age_s: float, reason: str | None) -> None:
    if reason:
        assert refusal(now=AT + age_s).reason == reason
    else:
        assert verify_webhook(BODY, HEADERS, KEY.text, now=AT + age_s) == EVENT


def test_another_tolerance_can_be_given_and_nan_is_none() -> None:
    assert verify_webhook(BODY, HEADERS, KEY.text, now=AT + 900, tolerance_s=900) == EVENT
    assert refusal(now=AT + 2, tolerance_s=1).reason == "too_old"
    assert refusal(tolerance_s=float("nan")).reason == "too_old"


def test_the_clock_is_this_machines_unless_given() -> None:
    assert verify_webhook(BODY, headers_of(KEY, at=now()), KEY.text) == EVENT
    with pytest.raises(WebhookVerificationError, match=r"the webhook is [0-9]+ s old, at most 300 s are allowed"):
        verify_webhook(BODY, HEADERS | {"webhook-timestamp": "1614265330"}, KEY.text)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in HEADERS.items() if key != name}


def but(**changes: str) -> dict[str, Any]:
    return {"headers": HEADERS | {f"webhook-{name}": value for name, value in changes.items()}}


# Changed arguments; the expected reason; a part of the expected message.
REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no id": ({"headers": without("webhook-id")}, "missing_header", "the header webhook-id is missing"),
    "no time": ({"headers": without("webhook-timestamp")}, "missing_header", "webhook-timestamp is missing"),
    "empty signature": (but(signature=" "), "missing_header", "webhook-signature is missing"),
    "no headers": ({"headers": {}}, "missing_header", "check that this request is a webhook"),
    "None for headers": ({"headers": None}, "missing_header", "headers of type NoneType cannot be read"),
    "no pairs": ({"headers": ["webhook-id"]}, "missing_header", "headers of type list cannot be read"),
    "time with exponent": (but(timestamp="1e9"), "bad_timestamp", "webhook-timestamp is '1e9'; it must be whole"),
    "negative time": (but(timestamp="-1"), "bad_timestamp", "must be whole Unix seconds"),
    "time in other digits": (but(timestamp="١٢٣"), "bad_timestamp", "must be whole Unix seconds"),
    "endless time": (but(timestamp="9" * 5000), "bad_timestamp", "must be whole Unix seconds"),
    "headers twice": ({"headers": [*HEADERS.items()] * 2}, "bad_timestamp", "must be whole Unix seconds"),
    "old": ({"now": AT + 1000}, "too_old", "the webhook is 1000 s old, at most 300 s are allowed"),
    "new": ({"now": AT - 1000}, "too_new", "the webhook is 1000 s in the future, at most 300 s are allowed"),
    "longer body": ({"body": BODY + b" "}, "no_matching_signature", "none of the 2 signatures matches this body"),
    "half a surrogate": ({"body": "\udc80"}, "no_matching_signature", "none of the 2 signatures"),
    "other secret": ({"secret": made().text}, "no_matching_signature", "with the secret of this receiver"),
    "other secrets": ({"secret": [made().text] * 2}, "no_matching_signature", "with these 2 secrets"),
    "other public key": ({"secret": public(made(KeyKind.ED25519))}, "no_matching_signature", "with this secret"),
    "odd signatures": (but(signature="v1, v1a v2,x ,, v1a,é v1,é v1a,QUJD"), "no_matching_signature", "of the 7"),
    "odd signatures of a pair": (
        but(signature="v1a, v1a v1a,é v1a,QUJD v1a,=") | {"secret": public(PAIR)},
        "no_matching_signature",
        "none of the 5",
    ),
    "hmac under other versions": (
        but(signature=f"v2,{MAC} v1a,{MAC} V1,{MAC} {MAC} v,1,{MAC}"),
        "no_matching_signature",
        "none of the 5",
    ),
    "ed25519 under other versions": (
        but(signature=f"v2,{PAIRED} v1,{PAIRED} v1b,{PAIRED}") | {"secret": public(PAIR)},
        "no_matching_signature",
        "none of the 3",
    ),
    "parsed body": (
        {"body": EVENT},
        "not_json",
        "body is of type dict; give the bytes as received, before any parsing",
    ),
    "no body": ({"body": None}, "not_json", "body is of type NoneType"),
    "None for secret": ({"secret": None}, "bad_secret", "set the variable that should hold it"),
    "empty list of secrets": ({"secret": []}, "bad_secret", "no secret is given"),
    "nothing iterated": ({"secret": iter(())}, "bad_secret", "the list is empty"),
    "a number for secret": ({"secret": 7}, "bad_secret", "secret is of type int"),
    "None among secrets": ({"secret": [KEY.text, None]}, "bad_secret", "begins neither with whsec_ nor with whpk_"),
    "no prefix": ({"secret": KEY.text[6:]}, "bad_secret", "give it as it was shown, prefix included"),
    "private key": ({"secret": PAIR.text}, "bad_secret", "is the sender's private key whsk_…; use its public key"),
    "cut secret": ({"secret": KEY.text[:-2]}, "bad_secret", "the text after whsec_ is not base64"),
    "secret with a blot": ({"secret": f"whsec_!{KEY.text[6:]}"}, "bad_secret", "the text after whsec_ is not base64"),
    "short secret": ({"secret": "whsec_Z2VoZWlt"}, "bad_secret", "the whsec_ secret has 6 bytes"),
    "short public key": ({"secret": "whpk_Z2VoZWlt"}, "bad_secret", "the whpk_ secret has 6 bytes"),
    "bad secret before bad headers": ({"secret": "x", "headers": {}}, "bad_secret", "begins neither with"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_failure_has_a_word_and_a_sentence_without_the_secret(name: str) -> None:
    changes, reason, sentence = REFUSALS[name]

    error = refusal(**changes)

    assert error.reason == reason
    assert sentence in str(error)
    assert KEY.text[6:] not in str(error)
    assert PAIR.text[5:] not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[1]",
        b"7",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" + b"1" * 5000 + b"]",
        BODY.decode().encode("utf-16"),
    ],
    ids=["cut", "empty", "list", "number", "no UTF-8", "byte order mark", "deep", "long number", "UTF-16"],
)
def test_a_signed_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body, headers_of(KEY, body=body), KEY.text, now=now().timestamp()).reason == "not_json"


def test_without_cryptography_a_public_key_asks_for_it_and_a_secret_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [module for module in sys.modules if module.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)

    assert verify_webhook(BODY, HEADERS, KEY.text, now=AT) == EVENT
    error = refusal(secret=public(PAIR))
    assert (error.reason, "pip install cryptography" in str(error)) == ("bad_secret", True)


def test_the_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(refusal(BODY + b" ")))
    assert (again.reason, str(again)[:4]) == ("no_matching_signature", "none")


ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
NAMES = st.one_of(st.sampled_from([*HEADERS, *(name.upper().encode() for name in HEADERS)]), ANY)
VALUES = st.one_of(st.sampled_from([*HEADERS.values()]), ANY, st.lists(ANY, max_size=2))
SIGNATURES = st.text(alphabet="v1a2, =+/AZaz09\té\u3000", max_size=200)


@settings(max_examples=300, deadline=None)
@given(
    body=st.one_of(st.just(BODY), ANY, st.recursive(ANY, lambda inner: st.lists(inner, max_size=2), max_leaves=3)),
    headers=st.one_of(
        st.just(HEADERS),
        st.dictionaries(NAMES, VALUES),
        st.lists(st.tuples(NAMES, VALUES)),
        st.lists(ANY),
        ANY,
        SIGNATURES.map(lambda text: HEADERS | {"webhook-signature": text}),
    ),
    secret=st.one_of(
        st.sampled_from([KEY.text, public(PAIR)]),
        ANY,
        st.lists(st.one_of(st.just(KEY.text), ANY)),
        st.text().map("whsec_{}".format),
        st.binary().map(lambda content: f"whpk_{b64encode(content).decode()}"),
    ),
)
def test_whatever_comes_is_the_event_or_the_one_error(body: Any, headers: Any, secret: Any) -> None:
    try:
        assert verify_webhook(body, headers, secret, now=AT) == EVENT
        assert body == BODY
    except WebhookVerificationError as error:
        assert error.reason
        assert str(error)


@settings(deadline=None)
@given(place=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7), secret=st.sampled_from([KEY.text, public(PAIR)]))
def test_one_changed_bit_is_refused(place: int, bit: int, secret: str) -> None:
    changed = bytearray(BODY)
    changed[place] ^= 1 << bit

    assert refusal(changed, HEADERS, secret).reason == "no_matching_signature"


@pytest.fixture
def address() -> Iterator[str]:
    """The address of the receiver in api_contracts/README.md, run with the test's own secret."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    code = next(block for block in blocks if "Receiver" in block)
    values: dict[str, Any] = {}
    exec(re.sub(r"whsec_[\w+/=]+", KEY.text, code), values)
    with HTTPServer(("127.0.0.1", 0), values["Receiver"]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def post(address: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_receiver_on_the_page_takes_what_we_sign_and_nothing_else(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = headers_of(KEY, PAIR)

    assert post(address, BODY, headers) == 204
    assert post(address, BODY + b" ", headers) == 400
    assert post(address, BODY, {}) == 400
    assert "job.completed evt_1" in capfd.readouterr().out
