"""Reads a job's text, from the queue or the SQL inbox alike, into a job, a visible refusal or a dead letter."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from worker.core.dead_letter import LONGEST_ID, DeadLetter, read_uuid
from worker.core.endpoint import Endpoint
from worker.core.exact_json import JsonError, Member, members
from worker.core.faults import FAULT_LIMIT, Fault, shown
from worker.jobs.core.message_fields import FIELDS, instant, is_traceparent, unknown_field, within_reach
from worker.jobs.core.request import Request, read_request

DEFAULT_PRIORITY = 5
DEFAULT_MAX_ATTEMPTS = 5

# Beside the request: the job's other fields, and what a Celery client puts round it.
_SPARE_BYTES = 64 * 1024


def most_bytes(max_request_bytes: int) -> int:
    """Return how large an entry may be that is read at all: parsing costs several times its size in memory.

    Base64 makes a third more of a job, and JSON text inside JSON text up to twice as much. What is between the limit
    of a request and this becomes a visible failed job.
    """
    return 2 * max_request_bytes + _SPARE_BYTES


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its producer sent it. `request` and `webhook` are JSON texts, character for character as they came.

    `webhook`: None means absent, the text `null` nobody. `streamed` and `n` are what the request says; `ignored` names
    what came with the message and was left aside, for the job's log line.
    """

    id: str
    tenant: str
    idempotency_key: str | None
    fingerprint: str
    endpoint: str
    model: str | None
    priority: int
    not_before: datetime | None
    deadline: datetime | None
    timeout_s: float
    max_attempts: int
    webhook: str | None
    ordering_key: str | None
    batch: str | None
    custom_id: str | None
    metadata: dict[str, str] | None
    traceparent: str | None
    request: str
    streamed: bool
    n: int | None
    token_limit: int | None
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job that fails at once and visibly. What of `job` could not be read has its default; a request that is not
    kept (missing, or too large) is the text `null`."""

    job: Job
    code: Literal["invalid_request", "idempotency_conflict"]
    faults: tuple[Fault, ...]
    message: str


def read_job(
    text: str,
    *,
    default_id: str | None,
    endpoints: Mapping[str, Endpoint],
    max_request_bytes: int,
    ignored: tuple[str, ...] = (),
    address_fault: Callable[[str], str | None] = lambda _: None,
) -> Job | Refusal | DeadLetter:
    """Read the text of a job message, version 1.

    `default_id` is the id of the message it came in (the job's own `id` wins), `ignored` what the envelope had in
    excess. `address_fault(url)` says what is wrong with an address for webhooks that the job brings. Never raises,
    whatever the text. Dead letters: `too_large, not_json, too_deep, not_an_object, no_id, id_not_uuid`; everything else
    that is wrong is a Refusal with all its faults.
    """
    if len(text) > most_bytes(max_request_bytes):
        size = f"The message has {len(text)} characters where a request may have {max_request_bytes} bytes"
        return DeadLetter("too_large", f"{size}; send large content by URL.", default_id)
    try:
        found = members(text)
    except JsonError as error:
        return DeadLetter(error.reason, str(error), default_id)
    job_id = _read_id(found.get("id"), default_id)
    if isinstance(job_id, DeadLetter):
        return job_id
    good, faults = _read_fields(found)
    endpoint = endpoints.get(_endpoint_name(good))
    faults += _whole_job(good, endpoints)
    # An endpoint nobody knows has no rules of its own: the request is held to what all endpoints share.
    endpoint = endpoint or Endpoint(_endpoint_name(good), url="", validation="shape")
    request, more = read_request(text, found.get("request"), endpoint.validation, max_bytes=max_request_bytes)
    faults += more
    if (fault := _address(good, address_fault)) is not None:
        faults.append(fault)
        # Nothing goes there, not even the news of the refusal.
        good["webhook"] = "null"
    elif "webhook" in good:
        good["webhook"] = text[found["webhook"].start : found["webhook"].end]
    elif "tenant" not in good and "tenant" in found and found["tenant"].value is not None:
        # The owner could not be read, so nobody's receivers may hear of it.
        good["webhook"] = "null"
    job = _job(job_id, good, request, endpoint, ignored=ignored)
    return _refusal(job, faults) if faults else job


def _read_id(member: Member | None, default_id: str | None) -> str | DeadLetter:
    given = default_id if member is None or member.value is None else member.value
    if given is None:
        return DeadLetter("no_id", "The message has no id; send one with the job or as the message's task id.", None)
    if (read := read_uuid(given)) is not None:
        return read
    remedy = "send a UUID such as 018f4a5e-7c1b-7d2e-9a53-0242ac120002"
    kept = given[:LONGEST_ID] if type(given) is str else None
    return DeadLetter("id_not_uuid", f"The id is {shown(given)}; {remedy}.", kept)


def _read_fields(found: Mapping[str, Member]) -> tuple[dict[str, Any], list[Fault]]:
    """Hold each field to its rule; null counts as absent except for `webhook`, where it means nobody."""
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, member in found.items():
        rule = FIELDS.get(name)
        if rule is None:
            faults.append(unknown_field(name))
        elif member.value is not None or name == "webhook":
            wrong = list(rule(name, member.value))
            faults += wrong
            if not wrong:
                good[name] = member.value
        if len(faults) > FAULT_LIMIT:
            break
    return good, faults


def _endpoint_name(good: Mapping[str, Any]) -> str:
    name = good.get("endpoint", "default")
    return str(name[0] if isinstance(name, list) else name)


def _whole_job(good: Mapping[str, Any], endpoints: Mapping[str, Endpoint]) -> Iterator[Fault]:
    endpoint = _endpoint_name(good)
    if endpoint not in endpoints:
        known = ", ".join(sorted(endpoints)) or "none"
        yield Fault("endpoint", f"is {shown(endpoint)}, which is not configured; configured: {known}")
    if "not_before" in good and "deadline" in good and instant(good["not_before"]) >= instant(good["deadline"]):
        yield Fault(
            "not_before",
            f"is {shown(good['not_before'])}, not before the deadline {shown(good['deadline'])}; move one of them",
        )


def _address(good: Mapping[str, Any], address_fault: Callable[[str], str | None]) -> Fault | None:
    """Find what is wrong with the address of a job's own that its webhook shall go to."""
    match good.get("webhook"):
        case {"url": str(url)} if (told := address_fault(url)) is not None:
            return Fault("webhook.url", told)
    return None


def _job(
    job_id: str, good: Mapping[str, Any], request: Request, endpoint: Endpoint, *, ignored: tuple[str, ...]
) -> Job:
    trace = good.get("traceparent")
    if trace is not None and not is_traceparent(trace):
        trace, ignored = None, (*ignored, "traceparent")
    return Job(
        id=job_id,
        tenant=good.get("tenant", "default"),
        idempotency_key=good.get("idempotency_key"),
        fingerprint=request.fingerprint,
        endpoint=endpoint.name,
        model=request.model,
        priority=good.get("priority", DEFAULT_PRIORITY),
        not_before=_instant(good.get("not_before")),
        deadline=_instant(good.get("deadline")),
        timeout_s=float(good.get("timeout_s", endpoint.total_s)),
        max_attempts=good.get("max_attempts", DEFAULT_MAX_ATTEMPTS),
        webhook=good.get("webhook"),
        ordering_key=good.get("ordering_key"),
        batch=good.get("batch"),
        custom_id=good.get("custom_id"),
        metadata=good.get("metadata"),
        traceparent=trace,
        request=request.text,
        streamed=request.streamed,
        n=request.n,
        token_limit=request.token_limit,
        ignored=ignored,
    )


def _instant(value: str | None) -> datetime | None:
    return None if value is None else within_reach(instant(value))


def _refusal(job: Job, faults: list[Fault]) -> Refusal:
    first = f"{faults[0].path} {faults[0].message}."
    message = first if len(faults) == 1 else f"The job has {len(faults)} faults; the first: {first}"
    if len(faults) > FAULT_LIMIT:
        more = Fault("job", f"has more faults than the {FAULT_LIMIT} listed here; mend these first")
        faults = [*faults[:FAULT_LIMIT], more]
        message = f"The job has more than {FAULT_LIMIT} faults; the first: {first}"
    return Refusal(job, "invalid_request", tuple(faults), message)


def conflict(job: Job, owner_id: str) -> Refusal:
    """Refuse a job whose idempotency key belongs to another request, the job `owner_id`."""
    told = f"the key {shown(job.idempotency_key)} belongs to job {owner_id}, whose request is another; use a new key"
    return Refusal(job, "idempotency_conflict", (Fault("idempotency_key", told),), f"idempotency_key: {told}")
