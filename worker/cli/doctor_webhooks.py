"""What `afterword doctor` says of webhooks: what is late, how receivers are, and the figures of the last hours."""

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

# A tick and the retries of a claim are over by then: nothing is late for so long by itself.
LATE_S = 60.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAMED = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, how it is, and the sentence about it; `figures` are its numbers for a script, by name."""

    part: str
    state: Literal["ok", "warning", "failed"]
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def webhook_findings(connection: Connection) -> Iterator[Finding]:
    """Yield a finding each for what waits, for the receivers, and for how deliveries went lately."""
    known = metrics.standings(connection)
    yield _waiting(connection, known)
    yield _receivers(known)
    yield _lately(connection, known)


def _waiting(connection: Connection, known: list[ReceiverFigures]) -> Finding:
    counts, troubles = metrics.unfinished(connection), metrics.own_trouble(connection)
    late = max((one for one in known if _is_late(one)), key=lambda one: one.overdue_s or 0.0, default=None)
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
    """Write counts by name; a count ends at MOST."""
    return ", ".join(f"{number}{' or more' if number == MOST else ''} {name}" for name, number in counts.items())


def _is_late(one: ReceiverFigures) -> bool:
    """Say whether what is due to a receiver could go: it is enabled and does not rest."""
    return one.status == "enabled" and one.overdue_s is not None and resting_until_s(one.health) <= one.now_s


def _receivers(known: list[ReceiverFigures]) -> Finding:
    resting = [one for one in known if one.status == "enabled" and resting_until_s(one.health) > one.now_s]
    failing = [one for one in known if one.status == "enabled" and _failing_s(one) >= WARNINGS_H[0] * HOUR_S]
    disabled = [one for one in known if one.status == "disabled"]
    reasons = {one: DISABLED.get(str(one.disabled_reason), str(one.disabled_reason)) for one in disabled}
    texts = [
        *_listed("resting", [_name(one) for one in resting]),
        *_listed("failing", [f"{_name(one)} for {words(_failing_s(one))}" for one in failing]),
        *_listed("disabled", [f"{_name(one)} ({reasons[one]})" for one in disabled]),
    ]
    groups = {"resting": resting, "failing": failing, "disabled": disabled}
    figures = {"receivers": len(known)} | {name: [_name(one) for one in ones] for name, ones in groups.items()}
    text = f"{len(known)} registered" + "".join(f"; {text}" for text in texts)
    # What an operator has disabled is as it was meant to be.
    ill = resting or failing or any(one.disabled_reason in list(DisableReason) for one in disabled)
    return Finding("receivers", "warning" if ill else "ok", text, figures)


def _lately(connection: Connection, known: list[ReceiverFigures]) -> Finding:
    recent = metrics.recent(connection, HOUR)
    took = metrics.latencies(connection, HOUR)
    forbidden = [one.id for one in known if one.health.forbidden_in_row]
    refused = metrics.refused(connection, HOUR, forbidden)
    doubled = metrics.suspected_duplicates(connection, DAY)
    texts = [f"last hour: {', '.join(f'{number} {status}' for status, number in sorted(recent.items())) or 'none'}"]
    if took:
        spans = ", ".join(f"p{percent} {took_s:.3g} s" for percent, took_s in took.items())
        texts.append(f"from a job's end to a receiver's 2xx: {spans}")
    texts += [f"refused by their address: {refused}"] if refused else []
    texts += [f"perhaps told twice in 24 h: {doubled}"] if doubled else []
    figures = {
        "last_hour": recent,
        "latency_s": {f"p{percent}": _rounded(took_s) for percent, took_s in took.items()},
        "forbidden_last_hour": refused,
        "suspected_duplicates_last_day": doubled,
    }
    return Finding("delivered", "warning" if refused else "ok", "; ".join(texts), figures)


def _failing_s(one: ReceiverFigures) -> float:
    return 0.0 if one.health.failing_since_s is None else one.now_s - one.health.failing_since_s


def _listed(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{what}: {', '.join(names[:NAMED])}{more}"] if names else []


def _name(one: ReceiverFigures) -> str:
    return f"{one.tenant}/{one.name}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
