"""The checks of `afterword doctor` on webhooks: late deliveries, unhealthy receivers, figures of the last hours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection

from worker.store.row_count import MOST
from worker.webhooks.core.explain import DISABLED, words
from worker.webhooks.core.outcome import DELIVERY_MEANINGS, DeliveryErrorCode, DisableReason
from worker.webhooks.core.receiver_health import WARNINGS_H, resting_until_s
from worker.webhooks.core.retry_schedule import HOUR_S
from worker.webhooks.store import metrics
from worker.webhooks.store.metrics import ReceiverFigures

# Longer than a tick and the retries of a claim: a delivery that is later than this has a reason.
LATE_S = 60.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAMED = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, its state, and a sentence about it; `figures` holds its numbers for scripts, by name."""

    part: str
    state: Literal["ok", "warning", "failed"]
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def webhook_findings(connection: Connection) -> Iterator[Finding]:
    """Yield three findings: waiting deliveries, receivers, and the deliveries of the last hour."""
    known = metrics.receiver_figures(connection)
    yield _waiting(connection, known)
    yield _receivers(known)
    yield _lately(connection, known)


def _waiting(connection: Connection, known: list[ReceiverFigures]) -> Finding:
    counts, troubles = metrics.unfinished(connection), metrics.own_trouble(connection)
    late = max(filter(_is_late, known), key=lambda receiver: receiver.overdue_s or 0.0, default=None)
    overdue_s = None if late is None else late.overdue_s
    texts = [counted(counts) or "nothing to deliver"]
    if late is not None and overdue_s is not None:
        texts.append(f"the oldest is overdue for {words(overdue_s)} (to {_name(late)})")
    texts += [
        f"{number} wait for {code}: {DELIVERY_MEANINGS[DeliveryErrorCode(code)].sentence}"
        for code, number in sorted(troubles.items())
    ]
    is_well = not troubles and not counts.get("held") and (overdue_s or 0.0) < LATE_S
    figures = {
        "oldest_overdue_s": _rounded(overdue_s),
        "unfinished": counts,
        "counted_to": MOST,
        "own_trouble": troubles,
    }
    return Finding("webhooks", "ok" if is_well else "warning", "; ".join(texts), figures)


def counted(counts: Mapping[str, int]) -> str:
    """Return `3 queued, 1 failed`; counting stops at MOST, shown as `or more`."""
    return ", ".join(f"{number}{' or more' if number == MOST else ''} {name}" for name, number in counts.items())


def _is_late(receiver: ReceiverFigures) -> bool:
    """Say whether a receiver has an overdue delivery although it is enabled and does not rest."""
    return (
        receiver.status == "enabled"
        and receiver.overdue_s is not None
        and resting_until_s(receiver.health) <= receiver.now_s
    )


def _receivers(known: list[ReceiverFigures]) -> Finding:
    resting = [
        receiver
        for receiver in known
        if receiver.status == "enabled" and resting_until_s(receiver.health) > receiver.now_s
    ]
    failing = [
        receiver
        for receiver in known
        if receiver.status == "enabled" and _failing_s(receiver) >= WARNINGS_H[0] * HOUR_S
    ]
    disabled = [receiver for receiver in known if receiver.status == "disabled"]
    reasons = {
        receiver: DISABLED.get(str(receiver.disabled_reason), str(receiver.disabled_reason)) for receiver in disabled
    }
    texts = [
        *_listed("resting", [_name(receiver) for receiver in resting]),
        *_listed("failing", [f"{_name(receiver)} for {words(_failing_s(receiver))}" for receiver in failing]),
        *_listed("disabled", [f"{_name(receiver)} ({reasons[receiver]})" for receiver in disabled]),
    ]
    groups = {"resting": resting, "failing": failing, "disabled": disabled}
    figures = {"receivers": len(known)} | {
        name: [_name(receiver) for receiver in receivers] for name, receivers in groups.items()
    }
    text = f"{len(known)} registered" + "".join(f"; {text}" for text in texts)
    # A receiver that an operator has disabled is no fault.
    unwell = resting or failing or any(receiver.disabled_reason in list(DisableReason) for receiver in disabled)
    return Finding("receivers", "warning" if unwell else "ok", text, figures)


def _lately(connection: Connection, known: list[ReceiverFigures]) -> Finding:
    recent = metrics.recent(connection, HOUR)
    took = metrics.latencies(connection, HOUR)
    forbidden = [receiver.id for receiver in known if receiver.health.forbidden_in_row]
    refused = metrics.refused(connection, HOUR, forbidden)
    doubled = metrics.suspected_duplicates(connection, DAY)
    texts = [f"last hour: {', '.join(f'{number} {status}' for status, number in sorted(recent.items())) or 'none'}"]
    if took:
        spans = ", ".join(f"p{percent} {took_s:.3g} s" for percent, took_s in took.items())
        texts.append(f"from a job's end to a receiver's 2xx: {spans}")
    texts += [f"refused because of their address: {refused}"] if refused else []
    texts += [f"perhaps delivered twice in 24 h: {doubled}"] if doubled else []
    figures = {
        "last_hour": recent,
        "latency_s": {f"p{percent}": _rounded(took_s) for percent, took_s in took.items()},
        "forbidden_last_hour": refused,
        "suspected_duplicates_last_day": doubled,
    }
    return Finding("delivered", "warning" if refused else "ok", "; ".join(texts), figures)


def _failing_s(receiver: ReceiverFigures) -> float:
    return 0.0 if receiver.health.failing_since_s is None else receiver.now_s - receiver.health.failing_since_s


def _listed(title: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{title}: {', '.join(names[:NAMED])}{more}"] if names else []


def _name(receiver: ReceiverFigures) -> str:
    return f"{receiver.tenant}/{receiver.name}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
