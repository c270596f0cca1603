"""The filter of bulk orders: pairs become conditions, and every mistake gets a sentence."""

from datetime import UTC, datetime

import pytest

from worker.jobs.core.filter import NAMES, BadFilter, Condition, parse


@pytest.mark.parametrize(
    ("texts", "conditions"),
    [
        (["status=failed"], [Condition("status", "is", ("failed",))]),
        (["status=failed status=expired"], [Condition("status", "is", ("failed", "expired"))]),
        (["status=failed", "tenant=a"], [Condition("status", "is", ("failed",)), Condition("tenant", "is", ("a",))]),
        (["batch='a b' model=a=b"], [Condition("batch", "is", ("a b",)), Condition("model", "is", ("a=b",))]),
        (["priority=9"], [Condition("priority", "is", (9,))]),
        (["tenant=';DROP TABLE afterword_jobs'"], [Condition("tenant", "is", (";DROP TABLE afterword_jobs",))]),
        (
            ["created_after=2026-11-23T03:00:00+02:00 deadline_before=2026-11-24t00:00:00z"],
            [
                Condition("created_at", "after", (datetime(2026, 11, 23, 1, tzinfo=UTC),)),
                Condition("deadline", "before", (datetime(2026, 11, 24, tzinfo=UTC),)),
            ],
        ),
        (
            ["finished_before=2026-11-24T00:00:00Z"],
            [Condition("finished_at", "before", (datetime(2026, 11, 24, tzinfo=UTC),))],
        ),
    ],
)  # fmt: skip
def test_pairs_become_conditions(texts: list[str], conditions: list[Condition]) -> None:
    assert parse(texts) == tuple(conditions)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the filter is empty; write status=failed"),
        ("failed", "'failed' is not a name=value pair; write status=failed"),
        ("tenant=", "'tenant=' is not a name=value pair"),
        ("=x", "'' is not a filter name; the names are status, tenant"),
        ("state=failed", "'state' is not a filter name; did you mean status?"),
        ("request=x", "'request' is not a filter name; the names are status, tenant"),
        ("status=done", "status is 'done'; give one of queued, in_progress, completed"),
        ("priority=10", "priority is '10'; give a digit from 0 (runs first) to 9"),
        ("priority=²", "priority is '²'; give a digit"),
        ("created_before=yesterday", "created_before is 'yesterday'; write a time with its offset, such as 2026"),
        ("created_before=2026-11-23T03:00:00", "write a time with its offset"),
        ("created_before=2026-11-23T00:00:00Z created_before=2026-11-24T00:00:00Z", "created_before is given twice"),
        ("tenant='a", 'has a quote that does not end; close it'),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_remedy(text: str, sentence: str) -> None:
    with pytest.raises(BadFilter) as raised:
        parse([text])
    assert sentence in str(raised.value)


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("created_before=6h", datetime(2026, 11, 24, 6, tzinfo=UTC)),
        ("finished_after=1.5d", datetime(2026, 11, 23, tzinfo=UTC)),
        ("deadline_before=30m", datetime(2026, 11, 24, 12, 30, tzinfo=UTC)),
        ("created_after=30000d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("created_after=2026-11-23T00:00:00Z", datetime(2026, 11, 23, tzinfo=UTC)),
    ],
)
def test_a_duration_is_a_time_before_now_and_for_deadlines_a_time_ahead(text: str, instant: datetime) -> None:
    (condition,) = parse([text], now=NOW)
    assert condition.values == (instant,)


@pytest.mark.parametrize(
    ("text", "now", "sentence"),
    [
        ("created_before=6h", None, "created_before is '6h'; write a time with its offset"),
        ("created_before=6", NOW, "created_before is '6'; write a time with its offset"),
        ("created_before=999999999d", NOW, "created_before is '999999999d', too long"),
    ],
)
def test_a_duration_needs_now_a_unit_and_a_bound(text: str, now: datetime | None, sentence: str) -> None:
    with pytest.raises(BadFilter, match=sentence):
        parse([text], now=now)


def test_no_filter_at_all_does_not_mean_all_jobs() -> None:
    with pytest.raises(BadFilter, match="the filter is empty"):
        parse([])


def test_every_name_is_a_column_of_jobs() -> None:
    from worker.store.tables import jobs

    at = "2026-11-23T00:00:00Z"
    for name in NAMES:
        value = {"status": "failed", "priority": "1"}.get(name, at)
        (condition,) = parse([f"{name}={value}"])
        assert condition.column in jobs.c
