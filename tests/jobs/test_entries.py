"""Reading an entry of the queue or the inbox never raises: it becomes a job, a visible refusal or a dead letter."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.queue.entries import encoded, envelope
from tests.store.made import REQUEST
from worker.core.dead_letter import DeadLetter
from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.core.message import Job, Refusal, most_bytes
from worker.jobs.entries import EntryReader
from worker.jobs.store.accept import Entry
from worker.jobs.store.inbox import Submitted
from worker.queue.list_heads import ListEntry
from worker.settings import read
from worker.webhooks.net.address_policy import policy
from worker.webhooks.net.url import target_fault

ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
SETTINGS = read({"AFTERWORD_ENDPOINT_URL": "https://one.example", "AFTERWORD_MAX_REQUEST_BYTES": "4096"})
BAD_HOSTS = ("xn--a.example", "xn--.example", "xn--zzzzzz99999999.example", "xn--xn--a.example", "xn--ls8h.example")


def reader(address_fault: Callable[[str], str | None] | None = None) -> EntryReader:
    """Return the reader of a worker that lets jobs name URLs."""
    return EntryReader(SETTINGS, address_fault or (lambda url: target_fault(url, policy())))


def both_doors(raw: bytes, made: EntryReader) -> list[Entry]:
    size = len(raw)
    return [made.read_message(ListEntry(size, raw)), made.read_row(Submitted(ID, raw, size))]


def message(job: Any, **changes: Any) -> bytes:
    return encoded(envelope(**{"task": "chat.submit", "queue": "chat.intake", "body": [[job], {}, {}], **changes}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
hosts = st.sampled_from(BAD_HOSTS) | st.text(max_size=40) | st.from_regex(r"xn--[a-z0-9-]{0,20}(\.[a-z]{1,9})?")
addresses = st.builds("https://{}/{}".format, hosts, st.text(max_size=10)) | st.text(max_size=40)
names = st.sampled_from(
    ["request", "id", "version", "tenant", "idempotency_key", "endpoint", "priority", "not_before", "deadline",
     "timeout_s", "max_attempts", "webhook", "ordering_key", "batch", "custom_id", "metadata", "traceparent"]
)  # fmt: skip
jobs = st.fixed_dictionaries(
    {"request": st.just(REQUEST) | json_values},
    optional={"webhook": st.fixed_dictionaries({"url": addresses}) | json_values},
) | st.dictionaries(names | st.text(max_size=8), json_values, max_size=6)
headers = st.dictionaries(
    st.sampled_from(["id", "task", "eta", "expires", "compression", "timelimit", "lang"]), json_values, max_size=4
)


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Return a message of a Celery client with a few bytes changed, removed or added."""
    raw = bytearray(message(draw(jobs), **draw(headers)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        raw[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=6))
    return bytes(raw)


entries = st.one_of(
    st.binary(max_size=400),
    json_values.map(lambda value: json.dumps(value).encode()),
    jobs.map(lambda job: json.dumps(job).encode()),
    st.builds(message, jobs),
    st.builds(lambda job, changes: message(job, **changes), jobs, headers),
    spoiled(),
)


@given(raw=entries)
@settings(max_examples=600, deadline=None)
def test_any_bytes_become_a_job_a_refusal_or_a_dead_letter(raw: bytes) -> None:
    for entry in both_doors(raw, reader()):
        assert isinstance(entry.read, Job | Refusal | DeadLetter)
        assert entry.raw == raw
        # A failure of our own code would also become a dead letter, and stay hidden here.
        assert not isinstance(entry.read, DeadLetter) or entry.read.reason != "not_accepted"


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_job_with_an_address_that_cannot_be_read_is_a_visible_refusal(host: str) -> None:
    job = {"request": REQUEST, "id": ID, "webhook": {"url": f"https://{host}/hooks"}}

    for entry in (*both_doors(json.dumps(job).encode(), reader())[1:], *both_doors(message(job), reader())[:1]):
        assert isinstance(entry.read, Refusal)
        assert [fault.path for fault in entry.read.faults] == ["webhook.url"]
        assert "cannot be read" in entry.read.message


@pytest.mark.parametrize("error", [ValueError("secret prompt"), RecursionError(), MemoryError(), KeyError("x")])
def test_an_exception_while_reading_is_that_entrys_dead_letter_and_our_logged_error(error: Exception) -> None:
    def fail(url: str) -> str | None:
        raise error

    job = {"request": REQUEST, "webhook": {"url": "https://example.com"}}
    raw, good = json.dumps(job).encode(), json.dumps({"request": REQUEST}).encode()
    with structlog.testing.capture_logs() as lines:
        entry = reader(fail).read_row(Submitted(ID, raw, len(raw)))
        second = reader(fail).read_message(ListEntry(len(message(job)), message(job)))
        neighbour = reader(fail).read_row(Submitted(ID, good, len(good)))

    for dead in (entry, second):
        assert isinstance(dead.read, DeadLetter)
        assert dead.read.reason == "not_accepted"
        assert "requeue" in dead.read.message
    assert (entry.raw, entry.read.id) == (raw, ID)
    assert isinstance(neighbour.read, Job)
    assert [(line["event"], line["log_level"], line["error"]) for line in lines] == [
        ("message.not_read", "error", type(error).__name__)
    ] * 2
    assert any("test_entries.py" in place for place in lines[0]["where"])
    assert "secret" not in str(lines)


def test_an_entry_beyond_the_limit_is_not_read_and_its_head_is_kept() -> None:
    longest = most_bytes(4096)
    raw = b"{" * (longest + 1)
    for size in (longest + 1, 550_000_000):
        for entry in (
            reader().read_message(ListEntry(size, raw[:HEAD_BYTES])),
            reader().read_row(Submitted(ID, raw[:HEAD_BYTES], size)),
        ):
            assert isinstance(entry.read, DeadLetter)
            assert entry.read.reason == "too_large"
            assert str(size) in entry.read.message
            assert entry.raw == raw[:HEAD_BYTES]


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_a_body_that_unpacks_beyond_the_limit_is_not_unpacked(pack: Callable[[bytes], bytes]) -> None:
    bomb = base64.b64encode(pack(b"[" * 50_000_000)).decode()
    raw = encoded({"headers": {"id": ID, "task": "chat.submit", "compression": "zlib"}, "body": bomb})

    entry = reader().read_message(ListEntry(len(raw), raw))

    assert isinstance(entry.read, DeadLetter)
    assert entry.read.reason == "too_large"
