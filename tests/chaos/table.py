"""The report of a run for people: the ledgers, the faults by kind, and the time until each was overcome."""

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tests.chaos.faults import Done
from tests.chaos.reconcile import Outcome

# Completions are counted in windows of this many seconds.
WINDOW_S = 2.0


def report_lines(
    outcome: Outcome,
    faults: Sequence[Done],
    completed_at: Sequence[float],
    settled_s: float,
    errors: Mapping[str, int],
) -> Iterator[str]:
    """Yield the lines of the report."""
    o = outcome
    yield "| | |\n|---|---|"
    yield f"| ids sent by producers | {o.sent} |"
    yield f"| jobs | {o.jobs}: {_counted(o.statuses)} |"
    yield f"| faults | {len(faults)} |"
    yield f"| load of the machine at the end | {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores |"
    yield f"| **lost** | **{len(o.lost)}** |"
    yield f"| **doubled** | **{len(o.doubled)}** |"
    extra = o.requests - o.asked_jobs
    yield f"| requests the endpoint saw | {o.requests} for {o.asked_jobs} jobs, {extra} beyond one a job |"
    yield f"| **of these unexplained** | **{len(o.unexplained)}** (explained by an attempt row: {o.explained}) |"
    yield f"| attempts sent that the endpoint did not see | {o.unseen_attempts} |"
    yield f"| attempts by outcome | {_counted(o.outcomes)} |"
    yield f"| jobs replayed | {o.replays} |"
    yield f"| jobs answered twice (a worker lost its lease with the answer on its way) | {o.answered_twice} |"
    yield f"| workers ended by their watchdog (no time for half a lease) | {o.starved} |"
    h = o.heard
    yield f"| events of webhooks | {h.events} for {h.jobs_with_events} jobs, {_counted(h.statuses)} |"
    yield f"| **events lost** | **{len(h.lost)}** |"
    yield f"| requests that receivers got | {h.requests}, {h.again} beyond one a delivery |"
    yield f"| **of these unexplained** | **{len(h.unexplained)}** (explained by an attempt row: {h.explained}) |"
    yield f"| deliveries taken twice (a worker lost its lease with the answer on its way) | {h.taken_twice} |"
    yield f"| attempts at deliveries | {_counted(h.outcomes)} |"
    yield f"| **signatures that do not verify, orders broken** | **{len(h.unsigned)}, {len(h.disordered)}** |"
    yield f"| dead letters | {_counted(o.dead_letters)} |"
    yield f"| errors that producers met | {_counted(errors)} |"
    yield f"| quiet until all was final | {settled_s:.1f} s |"
    yield f"| **other rules broken** | **{len(o.wrong)}** |"
    yield ""
    yield "| fault | times | first completion after it, p50 / max | rate back, p50 / max |\n|---|---|---|---|"
    for name, firsts, backs in recoveries(faults, completed_at):
        yield f"| {name} | {len(firsts)} | {_spread(firsts)} | {_spread(backs)} |"
    faults_found = {"lost": o.lost, "doubled": o.doubled, "unexplained": o.unexplained, "wrong": o.wrong}
    for name, lines in (faults_found | {f"webhooks {name}": lines for name, lines in h.faults.items()}).items():
        if lines:
            yield f"\n{name}:"
            yield from (f"  {line}" for line in lines[:40])
    yield f"\nlog lines: {_counted(o.log_lines)}"


def recoveries(faults: Sequence[Done], completed_at: Sequence[float]) -> list[tuple[str, list[float], list[float]]]:
    """Return for each kind the seconds from the end of each fault to the next completion, and to the usual rate.

    The usual rate is the median of completions in WINDOW_S over the whole run; half of it counts as back.
    """
    usual = _usual(completed_at)
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for fault in faults:
        place = bisect_right(completed_at, fault.ended)
        after = completed_at[place:]
        if not after:
            continue
        firsts, backs = found[fault.name]
        firsts.append(after[0] - fault.ended)
        backs.append(next((at - fault.ended for at in after if _rate(completed_at, at) >= usual / 2), after[-1]))
    return [(name, *both) for name, both in sorted(found.items())]


def _rate(completed_at: Sequence[float], at: float) -> int:
    """Count the completions in the window that begins at `at`."""
    return bisect_right(completed_at, at + WINDOW_S) - bisect_right(completed_at, at)


def _usual(completed_at: Sequence[float]) -> float:
    if not completed_at:
        return 0.0
    steps = int((completed_at[-1] - completed_at[0]) / WINDOW_S) + 1
    return median(_rate(completed_at, completed_at[0] + step * WINDOW_S) for step in range(steps))


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} / {max(seconds):.2f} s"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda pair: -pair[1])) or "none"
