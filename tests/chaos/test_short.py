"""The short form of the chaos run: one fault of most kinds, and the four ledgers agree. ops/chaos is the long form."""

from pathlib import Path

import pytest

from tests.chaos.run import chaos
from tests.chaos.schedule import KINDS
from tests.chaos.table import report_lines

# Mostly faults that need no new worker, because a start costs this machine seconds.
KILLED = ("worker killed", "worker stopped, longer than a lease", "redis restarted, all lost")
SHORT = (
    *KILLED, "redis connections killed", "redis restarted, log kept", "database restarted, immediate",
    "database connections killed", "database locked, longer than a lease", "endpoint refuses connections",
    "endpoint resets after reading", "endpoint answers 401", "receivers disabled, then enabled",
)  # fmt: skip


# Two cores can carry one run at a time.
@pytest.mark.xdist_group("chaos")
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_when_parts_break(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind.name in SHORT]

    run = chaos(tmp_path, seed=20, seconds=30.0, rate=6.0, gap_s=(0.5, 1.5), kinds=kinds, workers=2)

    report = "\n".join(report_lines(run.outcome, run.faults, run.completed_at, run.settled_s, run.errors))
    assert run.outcome.sound, report
    # The run was real: jobs ran and parts broke.
    assert run.outcome.jobs > 50, report
    assert run.outcome.statuses["completed"] > run.outcome.jobs / 2, report
    assert len(run.faults) >= len(KILLED), report
    assert run.outcome.heard.statuses["delivered"] > run.outcome.jobs / 2, report
