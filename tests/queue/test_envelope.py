"""Celery envelopes: messages of clients are opened, unusable entries become dead letters, and no entry raises."""

import base64
import bz2
import gzip
import json
import lzma
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.dead_letter import DeadLetter
from worker.core.endpoint import Endpoint
from worker.jobs.core.message import Job, read_job
from worker.queue.envelope import Envelope, decode

ID = "4c8e1f0a-3b5d-4e6f-8a7b-9c0d1e2f3a4b"
JOB = {"request": {"model": "m", "messages": [{"role": "user", "content": "é 😀"}]}}
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
PYTHON_BODY = json.dumps([[JOB], {}, EMBED]).encode()
HEADERS = {"lang": "py", "task": "chat.submit", "id": ID, "eta": None, "expires": None, "timelimit": [None, None]}


def entry(body=None, *, headers=HEADERS, encode=True, **members):
    """Return a queue entry; `body` is a value, or the text itself."""
    text = body if isinstance(body, str) else json.dumps([[JOB], {}, EMBED] if body is None else body)
    return json.dumps(
        {
            "body": base64.b64encode(text.encode()).decode() if encode else text,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {}},
            **members,
        }
    ).encode()


def v1(**members):
    body = {"task": "chat.submit", "id": ID, "args": [JOB], "kwargs": {}, "retries": 0, "eta": None, "utc": True}
    return entry({**body, **members}, headers={})


def without(name):
    message = json.loads(entry())
    del message[name]
    return json.dumps(message).encode()


GOOD = {
    "Python's Celery": entry(),
    "compact": entry(json.dumps([[JOB], {}, EMBED], separators=(",", ":"))),
    "wide": entry(json.dumps([[JOB], {}, EMBED], indent=2)),
    "without options": entry([[JOB], {}]),
    "empty options": entry([[JOB], {}, {}]),
    "null kwargs": entry([[JOB], None, None]),
    "keyword": entry([[], {"job": JOB}, EMBED]),
    "plain body": entry(encode=False),
    "plain body, no properties": entry(encode=False, properties=None),
    "no properties": without("properties"),
    "no content type": without("content-type"),
    "delivery tag an object": entry(properties={"delivery_tag": {}}),
    "stamped headers 5": entry(headers={**HEADERS, "stamped_headers": 5, "stamps": []}),
    "base64 with line breaks": entry(base64.encodebytes(PYTHON_BODY).decode(), encode=False),
    "zlib": entry(
        base64.b64encode(zlib.compress(PYTHON_BODY)).decode(),
        encode=False, headers={**HEADERS, "compression": "application/x-gzip"},
    ),
    "gzip": entry(
        base64.b64encode(gzip.compress(PYTHON_BODY, mtime=0)).decode(),
        encode=False, headers={**HEADERS, "compression": "gzip"},
    ),
    "version 1": v1(),
    "version 1, keyword": v1(args=[], kwargs={"job": JOB}),
    "version 1, few members": v1(kwargs=None),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_messages_of_celery_clients_are_opened(name):
    envelope = decode(GOOD[name])
    assert isinstance(envelope, Envelope), envelope
    assert (envelope.task, envelope.id, envelope.ignored) == ("chat.submit", ID, ())
    assert json.loads(envelope.arguments_text) == JOB


def test_the_argument_is_the_text_that_was_sent():
    text = r'{ "request" : {"x":1.50,"e":"\u00e9"} , "x":1}'
    for body in (f"[[{text}], {{}}, {json.dumps(EMBED)}]", f"[[ {text} ],{{}}]", f'[[],{{"job":{text}}},{{}}]'):
        assert decode(entry(body)).arguments_text == text


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"eta": "2026-11-23T03:14:15Z"}, "eta"),
        ({"expires": "2020-01-01T00:00:00Z"}, "expires"),
        ({"timelimit": [0.05, None]}, "timelimit"),
        ({"timelimit": 5}, "timelimit"),
    ],
)
def test_headers_without_effect_are_named(given, named):
    assert decode(entry(headers={**HEADERS, **given})).ignored == (named,)
    assert decode(v1(**given)).ignored == (named,)


def test_callbacks_are_named_as_the_producer_called_them():
    embed = {"callbacks": [{}], "errbacks": [{}], "chain": [{}], "chord": {}}
    expected = ("link", "link_error", "chain", "chord")
    assert decode(entry([[JOB], {}, embed])).ignored == expected
    assert decode(v1(**embed)).ignored == expected


@pytest.mark.parametrize("task_id", [None, 5, {}, [], True])
def test_an_id_that_is_no_text_is_no_id(task_id):
    assert decode(entry(headers={**HEADERS, "id": task_id})).id is None


DEAD = {
    "nothing": (b"", "not_json"),
    "no JSON": (b"hello", "not_json"),
    "pickle": (b"\x80\x04\x95\x00", "not_json"),
    "not UTF-8": (b'{"body": "\xff"}', "not_json"),
    "a list": (b"[]", "not_an_object"),
    "a number": (b"5", "not_an_object"),
    "too deep": (b'{"body":' * 50_000, "too_deep"),
    "body too deep": (entry("[" * 50_000), "too_deep"),
    "no body": (without("body"), "no_body"),
    "null body": (
        entry(body=None, encode=False) and json.dumps({"body": None, "headers": HEADERS}).encode(),
        "no_body",
    ),
    "body an object": (json.dumps({"body": {}, "headers": HEADERS}).encode(), "no_body"),
    "body no base64": (entry("%%%", encode=False), "not_json"),
    "body not ASCII": (entry("é", encode=False), "not_json"),
    "body pickled": (entry(base64.b64encode(b"\x80\x04\x95").decode(), encode=False), "not_json"),
    "body no list": (entry("5"), "not_an_array"),
    "body cut": (entry("[[{}], {}"), "not_json"),
    "body too short": (entry([[JOB]]), "bad_arguments"),
    "body too long": (entry([[JOB], {}, {}, {}]), "bad_arguments"),
    "no argument, no options": (entry([[], {}]), "bad_arguments"),
    "two arguments": (entry([[JOB, 1], {}]), "bad_arguments"),
    "argument and keyword": (entry([[JOB], {"x": 1}, EMBED]), "bad_arguments"),
    "another keyword": (entry([[], {"task": JOB}, EMBED]), "bad_arguments"),
    "args a string": (entry(["x", {}, EMBED]), "bad_arguments"),
    "args an object": (entry([{"job": 1}, {}, EMBED]), "bad_arguments"),
    "task a list": (entry(headers={**HEADERS, "task": ["x"]}), "no_task"),
    "task empty": (entry(headers={**HEADERS, "task": ""}), "no_task"),
    "no task at all": (entry(headers={}), "not_an_object"),
    "headers a list": (entry(headers=[]), "not_an_object"),
    "version 1 without a task": (v1(task=None), "no_task"),
    "version 1 without arguments": (v1(args=None), "bad_arguments"),
    "compressed, they say": (entry(headers={**HEADERS, "compression": "gzip"}), "not_json"),
}


@pytest.mark.parametrize("name", DEAD)
def test_a_message_that_cannot_be_opened_is_a_dead_letter_with_a_reason(name):
    raw, reason = DEAD[name]
    letter = decode(raw)
    assert isinstance(letter, DeadLetter), letter
    assert letter.reason == reason
    assert letter.message.endswith(".")


@pytest.mark.parametrize(
    ("compression", "pack"), [("bzip2", bz2.compress), ("application/x-bz2", bz2.compress), ("lzma", lzma.compress)]
)
def test_a_compression_that_is_not_read_is_named_with_the_remedy(compression, pack):
    packed = base64.b64encode(pack(PYTHON_BODY)).decode()
    letter = decode(entry(packed, encode=False, headers={**HEADERS, "compression": compression}))
    assert letter == DeadLetter(
        "not_json", f'The body\'s compression is "{compression}"; send the body with gzip, or uncompressed.', ID
    )


@pytest.mark.parametrize("packed", [b"- - request: {}\n", b"\x80\x04\x95", b"\x93\x91\x81"])
@pytest.mark.parametrize("label", ["application/x-yaml", "application/x-python-serialize", "application/x-msgpack"])
def test_a_serializer_that_is_not_read_is_named_with_the_remedy(label, packed):
    body = base64.b64encode(packed).decode()
    letter = decode(entry(body, encode=False, **{"content-type": label}))
    assert letter == DeadLetter("not_json", f"The body is \"{label}\"; send JSON (task_serializer='json').", ID)


def test_json_under_another_label_is_json():
    assert isinstance(decode(entry(**{"content-type": "application/x-yaml"})), Envelope)


@pytest.mark.parametrize("body", [[[], {}, EMBED], [[JOB, JOB], {}, EMBED], [[JOB, 1], {}, EMBED]])
def test_python_celerys_own_body_with_other_than_one_argument_ends_as_a_dead_letter(body):
    envelope = decode(entry(body))
    assert isinstance(envelope, Envelope)
    outcome = read_job(envelope.arguments_text, default_id=ID, endpoints={}, max_request_bytes=10_000)
    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, outcome.id) == ("not_json", ID)


def test_a_dead_letter_names_the_id_it_could_read():
    assert decode(entry([[JOB, 1], {}])).id == ID
    assert decode(entry("%%%", encode=False)).id == ID
    assert decode(v1(args=[])).id == ID


def test_an_entry_or_a_body_beyond_the_limit_is_not_read():
    assert decode(entry(), max_bytes=100).reason == "too_large"
    bomb = base64.b64encode(zlib.compress(b"[" * 10_000_000)).decode()
    letter = decode(entry(bomb, encode=False, headers={**HEADERS, "compression": "zlib"}), max_bytes=1_000_000)
    assert letter.reason == "too_large"


def test_a_message_of_a_real_shape_becomes_a_job():
    envelope = decode(entry())
    endpoints = {"default": Endpoint("default", url="https://one.example")}
    job = read_job(envelope.arguments_text, default_id=envelope.id, endpoints=endpoints, max_request_bytes=10_000)
    assert isinstance(job, Job)
    assert job.id == ID


@given(st.binary())
def test_no_bytes_raise(raw):
    assert isinstance(decode(raw), DeadLetter)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["body", "headers", "properties", "task", "id", "args", "kwargs", "job"]), inner, max_size=5
    ),
    max_leaves=10,
))  # fmt: skip
def test_no_json_raises(value):
    decode(json.dumps(value).encode())
    decode(entry(value, encode=False))
    decode(entry(value))


@pytest.mark.parametrize("name", GOOD)
def test_no_damage_to_an_entry_raises(name):
    chance = random.Random(name)
    for _ in range(300):
        raw = bytearray(GOOD[name])
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        assert isinstance(decode(bytes(raw)), (Envelope, DeadLetter))
