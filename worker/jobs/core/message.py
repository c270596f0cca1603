"""Reads the text of a job, from Redis or the SQL inbox, into a job, a visible refusal or a dead letter."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from worker.core.dead_letter import LONGEST_ID, DeadLetter, read_uuid
from worker.core.endpoint import Endpoint
from worker.core.exact_json import JsonError, Member, members
from worker.core.faults import FAULT_LIMIT, Fault, describe_value
from worker.jobs.core.message_fields import FIELDS, is_traceparent, read_time, unknown_field, within_reach
from worker.jobs.core.request import Request, read_request

DEFAULT_PRIORITY = 5
DEFAULT_MAX_ATTEMPTS = 5

# Room for the job's other fields and for the envelope of a Celery client.
_SPARE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its producer sent it. `request` and `webhook` are the exact JSON texts of the message.

    `webhook`: None if absent; the text `null` means that no webhook is sent. `streamed` and `n` are copied from the
    request. `ignored`, for the job's log line: unsupported options of the message, and an invalid `traceparent`.
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
    """A job that fails at once, with a row. Fields of `job` that could not be read have their defaults; a request that
    is missing, too large or too deep is the text `null`."""

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

    `default_id`: the id of the Celery message or inbox row; the job's own `id` wins. `ignored`: unsupported options of
    the envelope. `address_fault(url)` returns the fault of the job's webhook URL, or None. Never raises. Dead letters:
    `too_large, not_json, too_deep, not_an_object, no_id, id_not_uuid`; any other fault makes a Refusal that lists all
    faults.
    """
    if len(text) > most_bytes(max_request_bytes):
        size = f"The message has {len(text)} characters; its request may have at most {max_request_bytes} bytes"
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
    faults += _cross_field_faults(good, endpoints)
    # An unknown endpoint has no validation setting, so the request is checked by the rules for all endpoints.
    endpoint = endpoint or Endpoint(_endpoint_name(good), url="", validation="shape")
    request, more = read_request(text, found.get("request"), endpoint.validation, max_bytes=max_request_bytes)
    faults += more
    if (fault := _webhook_url_fault(good, address_fault)) is not None:
        faults.append(fault)
        # Nothing is sent to a bad address, not even the event of the refusal.
        good["webhook"] = "null"
    elif "webhook" in good:
        good["webhook"] = text[found["webhook"].start : found["webhook"].end]
    elif "tenant" not in good and "tenant" in found and found["tenant"].value is not None:
        # The tenant could not be read, so no tenant's receivers may get the event.
        good["webhook"] = "null"
    job = _job(job_id, good, request, endpoint, ignored=ignored)
    return _refusal(job, faults) if faults else job


def conflict(job: Job, owner_id: str) -> Refusal:
    """Refuse a job: its idempotency key belongs to the job `owner_id`, with another request."""
    key = describe_value(job.idempotency_key)
    fault = f"the key {key} belongs to job {owner_id} with a different request; use a new key"
    return Refusal(job, "idempotency_conflict", (Fault("idempotency_key", fault),), f"idempotency_key: {fault}")


def most_bytes(max_request_bytes: int) -> int:
    """Return the size limit of an entry; a larger one is not parsed, because parsing needs several times its size.

    The limit leaves room for encodings: base64 makes a job a third larger, JSON text inside JSON text up to twice as
    large. A request above its own limit but within this one becomes a visible failed job.
    """
    return 2 * max_request_bytes + _SPARE_BYTES


def _read_id(member: Member | None, default_id: str | None) -> str | DeadLetter:
    given = default_id if member is None or member.value is None else member.value
    if given is None:
        return DeadLetter("no_id", "The message has no id; set the job's id or the message's task id.", None)
    if (job_id := read_uuid(given)) is not None:
        return job_id
    remedy = "send a UUID such as 018f4a5e-7c1b-7d2e-9a53-0242ac120002"
    kept = given[:LONGEST_ID] if type(given) is str else None
    return DeadLetter("id_not_uuid", f"The id is {describe_value(given)}; {remedy}.", kept)


def _read_fields(found: Mapping[str, Member]) -> tuple[dict[str, Any], list[Fault]]:
    """Check each field by its rule. null counts as absent, except for `webhook`, where it means: send none."""
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, member in found.items():
        rule = FIELDS.get(name)
        if rule is None:
            faults.append(unknown_field(name))
        elif member.value is not None or name == "webhook":
            found_faults = list(rule(name, member.value))
            faults += found_faults
            if not found_faults:
                good[name] = member.value
        if len(faults) > FAULT_LIMIT:
            break
    return good, faults


def _endpoint_name(good: Mapping[str, Any]) -> str:
    name = good.get("endpoint", "default")
    return str(name[0] if isinstance(name, list) else name)


def _cross_field_faults(good: Mapping[str, Any], endpoints: Mapping[str, Endpoint]) -> Iterator[Fault]:
    endpoint = _endpoint_name(good)
    if endpoint not in endpoints:
        known = ", ".join(sorted(endpoints)) or "none"
        yield Fault("endpoint", f"is {describe_value(endpoint)}, which is not configured; configured: {known}")
    if "not_before" in good and "deadline" in good and read_time(good["not_before"]) >= read_time(good["deadline"]):
        yield Fault(
            "not_before",
            f"is {describe_value(good['not_before'])}, not before the deadline {describe_value(good['deadline'])}; "
            "move one of them",
        )


def _webhook_url_fault(good: Mapping[str, Any], address_fault: Callable[[str], str | None]) -> Fault | None:
    match good.get("webhook"):
        case {"url": str(url)} if (message := address_fault(url)) is not None:
            return Fault("webhook.url", message)
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
    return None if value is None else within_reach(read_time(value))


def _refusal(job: Job, faults: list[Fault]) -> Refusal:
    first = f"{faults[0].path} {faults[0].message}."
    message = first if len(faults) == 1 else f"The job has {len(faults)} faults; the first: {first}"
    if len(faults) > FAULT_LIMIT:
        more = Fault("job", f"has more faults than the {FAULT_LIMIT} listed here; fix these first")
        faults = [*faults[:FAULT_LIMIT], more]
        message = f"The job has more than {FAULT_LIMIT} faults; the first: {first}"
    return Refusal(job, "invalid_request", tuple(faults), message)
