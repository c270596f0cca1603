"""Job messages become a job, a visible refusal or a dead letter; no message is lost."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.dead_letter import DeadLetter
from worker.core.endpoint import Endpoint
from worker.jobs.core.message import Fault, Job, Refusal, most_bytes, read_job
from worker.jobs.core.request import fingerprint

ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
OTHER_ID = "4c8e1f0a-3b5d-4e6f-8a7b-9c0d1e2f3a4b"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ENDPOINTS = {
    "default": Endpoint("default", url="https://one.example/v1/chat/completions", total_s=77.0),
    "loose": Endpoint("loose", url="https://two.example/v1/chat/completions", validation="shape"),
}


def read(job, *, default_id=ID, max_request_bytes=10_000, ignored=()):
    text = job if isinstance(job, str) else json.dumps(job)
    return read_job(
        text, default_id=default_id, endpoints=ENDPOINTS, max_request_bytes=max_request_bytes, ignored=ignored
    )


def refused(job, **options):
    outcome = read(job, **options)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.code == "invalid_request"
    return outcome


def fault_of(**fields):
    outcome = refused({"request": REQUEST, **fields})
    assert len(outcome.faults) == 1
    return outcome.faults[0]


def test_a_job_of_a_request_alone_has_every_default():
    assert read({"request": REQUEST}) == Job(
        id=ID,
        tenant="default",
        idempotency_key=None,
        fingerprint=fingerprint(REQUEST),
        endpoint="default",
        model="m",
        priority=5,
        not_before=None,
        deadline=None,
        timeout_s=77.0,
        max_attempts=5,
        webhook=None,
        ordering_key=None,
        batch=None,
        custom_id=None,
        metadata=None,
        traceparent=None,
        request=json.dumps(REQUEST),
        streamed=False,
        n=None,
        token_limit=None,
        ignored=(),
    )


def test_a_job_with_every_field_keeps_every_field():
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    job = read(
        {
            "id": OTHER_ID.upper(), "version": 1, "tenant": "shop", "idempotency_key": "k" * 255, "endpoint": ["loose"],
            "priority": 0, "not_before": "2026-11-23T03:14:15.5+01:00", "deadline": "2026-12-01t00:00:00z",
            "timeout_s": 3, "max_attempts": 100, "webhook": {"to": "orders"}, "ordering_key": "o", "batch": "b",
            "custom_id": "c", "metadata": {"a": "", "é": "x"}, "traceparent": trace,
            "request": {**REQUEST, "stream": True, "n": 2},
        },
        ignored=("eta",),
    )  # fmt: skip
    assert isinstance(job, Job)
    assert (job.id, job.tenant, job.idempotency_key, job.endpoint) == (OTHER_ID, "shop", "k" * 255, "loose")
    assert job.not_before == datetime(2026, 11, 23, 2, 14, 15, 500_000, tzinfo=UTC) and job.not_before.tzinfo is UTC
    assert job.deadline == datetime(2026, 12, 1, tzinfo=UTC)
    assert (job.priority, job.timeout_s, job.max_attempts, job.webhook) == (0, 3.0, 100, '{"to": "orders"}')
    assert (job.ordering_key, job.batch, job.custom_id, job.traceparent) == ("o", "b", "c", trace)
    assert (job.metadata, job.streamed, job.n, job.ignored) == ({"a": "", "é": "x"}, True, 2, ("eta",))


def test_the_request_is_kept_character_for_character():
    request = (
        r'{ "messages":[{"role":"user","content":"\u00e9 é \ud83d\ude00"}],"model":"m", "x":1.50, "y":1E+2,"x":7 }'
    )
    job = read(f'{{"priority": 1, "request" : {request} , "batch": "b"}}')
    assert isinstance(job, Job)
    assert job.request == request


def test_webhook_null_means_no_receiver_and_absent_the_default():
    assert read({"request": REQUEST, "webhook": None}).webhook == "null"
    assert read({"request": REQUEST}).webhook is None


@pytest.mark.parametrize(
    "field",
    ["id", "version", "tenant", "idempotency_key", "endpoint", "priority", "not_before", "deadline", "timeout_s",
     "max_attempts", "ordering_key", "batch", "custom_id", "metadata", "traceparent"],
)  # fmt: skip
def test_any_other_field_that_is_null_counts_as_absent(field):
    assert read({"request": REQUEST, field: None}) == read({"request": REQUEST})


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("version", 2, "version"),
        ("version", True, "version"),
        ("tenant", "", "tenant"),
        ("tenant", "x" * 256, "tenant"),
        ("tenant", "a\0b", "tenant"),
        ("idempotency_key", 5, "idempotency_key"),
        ("idempotency_key", "\ud800", "idempotency_key"),
        ("idempotency_key", "k" * 256, "idempotency_key"),
        ("endpoint", "elsewhere", "endpoint"),
        ("endpoint", ["default", "loose"], "endpoint"),
        ("endpoint", [], "endpoint"),
        ("endpoint", [5], "endpoint[0]"),
        ("priority", 10, "priority"),
        ("priority", -1, "priority"),
        ("priority", 1.0, "priority"),
        ("priority", "high", "priority"),
        ("not_before", "2026-11-23T03:14:15", "not_before"),
        ("not_before", "2026-11-23", "not_before"),
        ("not_before", 1763867655, "not_before"),
        ("deadline", "2026-02-30T00:00:00Z", "deadline"),
        ("deadline", "9999-12-31T23:59:59-23:00", "deadline"),
        ("deadline", "2026-W48-1T00:00:00Z", "deadline"),
        ("timeout_s", 0, "timeout_s"),
        ("timeout_s", 86_401, "timeout_s"),
        ("timeout_s", True, "timeout_s"),
        ("max_attempts", 0, "max_attempts"),
        ("max_attempts", 101, "max_attempts"),
        ("webhook", "https://x.example", "webhook"),
        ("webhook", {}, "webhook"),
        ("webhook", {"to": "a", "url": "https://x.example"}, "webhook"),
        ("webhook", {"to": None}, "webhook.to"),
        ("webhook", {"to": "Billing"}, "webhook.to"),
        ("webhook", {"to": "billing\n"}, "webhook.to"),
        ("webhook", {"to": "a" * 65}, "webhook.to"),
        ("webhook", {"to": f"url-{'0a' * 12}"}, "webhook.to"),
        ("webhook", {"url": ""}, "webhook.url"),
        ("webhook", {"url": 5}, "webhook.url"),
        ("webhook", {"url": "ftp://x.example"}, "webhook.url"),
        ("webhook", {"url": "https://x.example/" + "x" * 2048}, "webhook.url"),
        ("metadata", [], "metadata"),
        ("metadata", {str(number): "" for number in range(17)}, "metadata"),
        ("metadata", {"a" * 65: "x"}, 'metadata["' + "a" * 60 + '…"]'),
        ("metadata", {"a": "x" * 513}, "metadata.a"),
        ("metadata", {"a": 5}, "metadata.a"),
        ("metadata", {"a": "\0"}, "metadata.a"),
        ("traceparent", 5, "traceparent"),
    ],
)
def test_a_field_out_of_its_bounds_is_a_fault_at_its_path(field, value, path):
    assert fault_of(**{field: value}).path == path


def test_an_invalid_receiver_name_is_refused_with_the_rule_of_names():
    assert fault_of(webhook={"to": "Billing"}).message.startswith('is "Billing"; use up to 64 of a-z')
    assert "are reserved for the URLs of jobs" in fault_of(webhook={"to": f"url-{'0a' * 12}"}).message
    assert read({"request": REQUEST, "webhook": {"to": "a.b-c_1"}}).webhook == '{"to": "a.b-c_1"}'


@pytest.mark.parametrize(
    "webhook",
    [
        "https://x.example/?token=geheim", {"to": "https://x.example/?token=geheim"},
        {"url": "ftp://x.example/?token=geheim"}, {"url": f"https://x.example/?token=geheim{'x' * 2048}"},
        {"url": "https://x.example/?token=geheim\0"}, {"url": ["https://x.example/?token=geheim"]},
        {"url": "https://x.example/?token=geheim", "to": "x"},
    ],
    ids=["text", "name", "scheme", "long", "unstorable", "array", "two"],
)  # fmt: skip
def test_no_fault_quotes_an_address_whose_query_may_be_a_token(webhook):
    outcome = refused({"request": REQUEST, "webhook": webhook})
    assert "geheim" not in outcome.message + repr(outcome.faults)


def test_a_trace_context_that_is_none_is_left_aside_and_named():
    job = read({"request": REQUEST, "traceparent": "00-xyz"}, ignored=("eta",))
    assert (job.traceparent, job.ignored) == (None, ("eta", "traceparent"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("idempotencyKey", 'did you mean "idempotency_key"?'),
        ("priorty", 'did you mean "priority"?'),
        ("messages", 'put it inside "request"'),
        ("model", 'put it inside "request"'),
        ("zzz", "the fields are request, id, version"),
        ("a\0\ud800", "the fields are"),
    ],
)
def test_an_unknown_field_is_refused_by_name_with_a_hint(name, hint):
    fault = fault_of(**{name: 1})
    assert hint in fault.message
    (fault.path + fault.message).encode()


def test_an_unknown_endpoint_is_answered_with_the_known_ones():
    outcome = refused({"request": {**REQUEST, "temperature": "hot", "n": 0}, "endpoint": "elsewhere"})
    assert outcome.faults[0] == Fault("endpoint", 'is "elsewhere", which is not configured; configured: default, loose')
    assert [fault.path for fault in outcome.faults[1:]] == ["request.temperature"]
    assert outcome.job.endpoint == "elsewhere"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0001-01-01T00:00:00.5Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31T00:00:00Z", datetime(9999, 12, 31, tzinfo=UTC)),
        ("9999-12-31T23:59:59.9Z", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_time_that_some_readers_could_not_show_is_moved_to_a_readable_one(given, kept):
    assert read({"request": REQUEST, "deadline": given}).deadline == kept
    assert read({"request": REQUEST, "not_before": given}).not_before == kept


def test_faults_of_a_message_stay_short_for_any_content():
    huge = "7" * 1_000_000
    late, early = f"2026-01-02T00:00:00.{huge}Z", f"2026-01-01T00:00:00.{huge}Z"
    fields = {huge: 1, "tenant": huge, "endpoint": huge, "priority": huge, "not_before": late, "deadline": early}
    jobs = [
        {"request": REQUEST, **fields},
        {"request": REQUEST, "not_before": late, "deadline": early},
        {"request": REQUEST, "id": huge},
        {"request": {**REQUEST, "model": huge, huge: 1, "n": huge}},
    ]

    for outcome in (read(job, max_request_bytes=10_000_000) for job in jobs):
        row = outcome.job if isinstance(outcome, Refusal) else outcome
        assert isinstance(outcome, Job) or len(outcome.message) < 3000
        assert isinstance(row, DeadLetter) or len(row.model) <= 255
        assert len(row.id) <= 255


def test_a_job_that_could_never_start_is_refused():
    outcome = refused(
        {"request": REQUEST, "not_before": "2026-01-02T00:00:00Z", "deadline": "2026-01-02T01:00:00+01:00"}
    )
    assert [fault.path for fault in outcome.faults] == ["not_before"]


def test_the_endpoint_decides_how_strictly_the_request_is_read():
    job = {"request": {**REQUEST, "temperature": 9}}
    assert isinstance(read({**job, "endpoint": "loose"}), Job)
    assert isinstance(read(job), Refusal)


def test_all_faults_of_job_and_request_come_together():
    outcome = refused({"request": {**REQUEST, "n": 0, "model": ""}, "priority": 11, "prio": 1})
    assert {fault.path for fault in outcome.faults} == {"priority", "prio", "request.model", "request.n"}
    assert outcome.message.startswith("The job has 4 faults; the first: priority is 11;")


def test_a_refusal_keeps_the_readable_fields():
    outcome = refused({"request": {**REQUEST, "n": 0}, "priority": 11, "tenant": "shop", "webhook": {"to": "orders"}})
    job = outcome.job
    assert (job.id, job.tenant, job.priority, job.webhook, job.model) == (ID, "shop", 5, '{"to": "orders"}', "m")
    assert job.request == json.dumps({**REQUEST, "n": 0})
    assert job.fingerprint == fingerprint({**REQUEST, "n": 0})


def test_a_refusal_with_an_unreadable_tenant_has_no_receiver():
    assert refused({"request": REQUEST, "tenant": 5}).job.webhook == "null"
    assert refused({"request": REQUEST, "priority": 11}).job.webhook is None


@pytest.mark.parametrize("request_text", ["null", "5", '"text"', "[]"])
def test_a_request_that_is_no_object_is_a_refusal(request_text):
    outcome = refused(f'{{"request": {request_text}}}')
    assert [fault.path for fault in outcome.faults] == ["request"]
    assert outcome.job.request == request_text
    assert refused({}).faults[0].path == "request"


def test_a_request_too_large_is_refused_and_not_kept():
    content = "é" * 400
    big = {"request": {"model": "m", "messages": [{"role": "user", "content": content}]}, "tenant": "shop"}
    text = json.dumps(big, ensure_ascii=False)
    outcome = refused(text, max_request_bytes=800)
    assert (outcome.job.id, outcome.job.tenant, outcome.job.request) == (ID, "shop", "null")
    assert "AFTERWORD_MAX_REQUEST_BYTES" in outcome.message
    assert outcome.job.fingerprint == refused(text, max_request_bytes=799).job.fingerprint
    assert isinstance(read(text, max_request_bytes=900), Job)


def test_a_message_beyond_all_measure_is_a_dead_letter():
    longest = most_bytes(5)
    letter = read('{"request": {}, "tenant": "' + "x" * longest + '"}', max_request_bytes=5)
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.id) == ("too_large", ID)
    assert isinstance(read({"request": REQUEST}, max_request_bytes=5), Refusal)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("NaN", "request.x"),
        ("-Infinity", "request.x"),
        ("1e999", "request.x"),
        ("9" * 5000, "request.x"),
        (r'"\ud800"', "request.x"),
        (r'["\ud83d\ude00", {"a": "\ude00\ud83d"}]', "request.x[1].a"),
    ],
)
def test_a_value_that_json_cannot_carry_is_refused_with_its_path(value, path):
    text = f'{{"request": {{"model": "m", "messages": [{{"role": "user", "content": ""}}], "x": {value}}}}}'
    outcome = refused(text)
    assert [fault.path for fault in outcome.faults] == [path]
    assert outcome.job.fingerprint == refused(text).job.fingerprint


@pytest.mark.parametrize(
    ("fields", "n", "token_limit"),
    [
        ({"max_tokens": 10}, None, 10),
        ({"max_tokens": 10, "max_completion_tokens": 30, "n": 3}, 3, 90),
        ({"n": 2}, 2, None),
        ({"n": 10**30, "max_tokens": 10}, None, 10),
        ({"n": 2, "max_tokens": 2**62}, 2, None),
    ],
)
def test_choices_and_the_token_limit_fit_their_columns(fields, n, token_limit):
    job = read({"request": {**REQUEST, **fields}})
    assert (job.n, job.token_limit) == (n, token_limit)


def test_integers_beyond_64_bits_pass_as_they_came():
    job = read(f'{{"request": {{"model": "m", "messages": [{{"role": "user", "content": ""}}], "x": {10**400}}}}}')
    assert isinstance(job, Job)
    assert str(10**400) in job.request


def test_a_request_that_nests_too_deeply_is_refused():
    nested = "[" * 300 + "]" * 300
    outcome = refused(
        f'{{"request": {{"model": "m", "messages": [{{"role": "user", "content": ""}}], "x": {nested}}}}}'
    )
    assert outcome.job.request == "null"
    assert "200 levels" in outcome.message


def test_brackets_in_a_prompt_are_no_nesting():
    request = {"model": "m", "messages": [{"role": "user", "content": "[" * 1000}]}
    assert isinstance(read({"request": request}), Job)


@pytest.mark.parametrize(
    ("text", "default_id", "reason", "letter_id"),
    [
        ("", ID, "not_json", ID),
        ("nope", ID, "not_json", ID),
        ('{"request": {}', ID, "not_json", ID),
        ('{"request": {}} {}', ID, "not_json", ID),
        ("[]", ID, "not_an_object", ID),
        ("null", None, "not_an_object", None),
        ("[" * 100_000, ID, "too_deep", ID),
        ("{}", None, "no_id", None),
        ('{"id": null}', None, "no_id", None),
        ("{}", "job-7", "id_not_uuid", "job-7"),
        ('{"id": "7"}', ID, "id_not_uuid", "7"),
        ('{"id": 7}', ID, "id_not_uuid", None),
        ('{"id": "018f4a5e7c1b-7d2e-9a53-0242ac120002"}', ID, "id_not_uuid", "018f4a5e7c1b-7d2e-9a53-0242ac120002"),
        ('{"id": "018f4a5e7c1b7d2e9a530242ac12000"}', ID, "id_not_uuid", "018f4a5e7c1b7d2e9a530242ac12000"),
        (f'{{"id": "{ID}\\n"}}', ID, "id_not_uuid", f"{ID}\n"),
    ],
)
def test_a_message_without_a_row_to_become_is_a_dead_letter(text, default_id, reason, letter_id):
    letter = read(text, default_id=default_id, max_request_bytes=100_000)
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.id) == (reason, letter_id)
    assert letter.message.endswith(".")


@pytest.mark.parametrize("given_as", ["id", "task id"])
@pytest.mark.parametrize("text", ["018F4A5E7C1B7D2E9A530242AC120002", "018f4a5e-7c1b-7d2e-9a53-0242ac120002"])
def test_an_id_is_read_with_hyphens_and_without(text, given_as):
    job = {"request": REQUEST} | ({"id": text} if given_as == "id" else {})
    assert read(job, default_id=text).id == "018f4a5e-7c1b-7d2e-9a53-0242ac120002"


def test_thousands_of_faults_are_cut_to_a_hundred_and_one():
    outcome = refused({"request": REQUEST, **{f"x{number}": 1 for number in range(3000)}}, max_request_bytes=100_000)
    assert len(outcome.faults) == 101
    assert outcome.faults[-1].path == "job"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["request", "id", "version", "tenant", "idempotency_key", "endpoint", "priority", "not_before", "deadline",
     "timeout_s", "max_attempts", "webhook", "ordering_key", "batch", "custom_id", "metadata", "traceparent", "x"]
)  # fmt: skip


@given(st.dictionaries(NAMES, JSON), st.booleans())
def test_no_value_anywhere_raises(job, ascii_only):
    job.setdefault("id", ID)
    outcome = read(json.dumps(job, ensure_ascii=ascii_only))
    assert isinstance(outcome, (Job, Refusal, DeadLetter))


@given(st.text(st.characters(exclude_categories=())) | st.text("{}[]\":,\\u0 1ea'nulltrue"))
def test_no_text_raises(text):
    assert isinstance(read(text), (Refusal, DeadLetter))
