"""The walks of `verify.verify`: which tables, by which key, and the rules that the rows of each are asked about."""

from typing import Final

from worker.store.tables import (
    aliases,
    answers,
    attempts,
    cancellations,
    counters,
    endpoints,
    finished,
    jobs,
    requests,
    workers,
)
from worker.verify import (
    deliveries as checks_deliveries,
)
from worker.verify import (
    endpoints as checks_endpoints,
)
from worker.verify import (
    events as checks_events,
)
from worker.verify import (
    feed,
    usage,
)
from worker.verify import (
    jobs as checks,
)
from worker.verify.rule import TableRules
from worker.webhooks.store.tables import deliveries, delivery_attempts, events, receivers

WALKS: Final = (
    TableRules(
        jobs.c.id,
        (
            checks.status_is_known,
            checks.only_running_jobs_are_held,
            checks.holder_lives,
            checks.deadline_is_kept,
            checks.cancellation_is_heard,
            checks.finish_is_dated,
            feed.feed_has_what_is_final,
            checks.request_is_kept,
            checks.attempts_are_numbered,
            checks.running_jobs_have_an_open_attempt,
            checks.budget_is_kept,
            checks.answer_is_kept,
            checks.answer_is_used,
            checks_events.ends_are_told,
            checks_events.ends_are_told_once,
        ),
    ),
    TableRules(
        attempts.c.job_id,
        (checks.open_attempts_are_held, checks.attempts_have_a_job, usage.usage_is_what_was_reported),
    ),
    TableRules(answers.c.job_id, (checks.answers_have_an_attempt,)),
    TableRules(requests.c.job_id, (checks.requests_have_a_job,)),
    TableRules(aliases.c.id, (checks.aliases_lead_to_a_job,)),
    TableRules(cancellations.c.id, (feed.cancellations_are_served,)),
    TableRules(finished.c.cursor, (feed.finished_jobs_exist,)),
    TableRules(workers.c.id, (checks.ended_leases_are_struck,)),
    TableRules(counters.c.name, (feed.counter_knows_every_number,)),
    TableRules(
        endpoints.c.name,
        (
            checks_endpoints.rest_has_a_cause,
            checks_endpoints.probes_are_jobs,
            checks_endpoints.rest_is_probed,
            checks_endpoints.slow_start_ends,
        ),
    ),
    TableRules(
        events.c.id,
        (
            checks_events.events_are_delivered,
            checks_events.events_have_a_job,
            checks_events.events_tell_an_end,
            checks_events.bodies_are_of_their_job,
        ),
    ),
    TableRules(
        deliveries.c.id,
        (
            checks_deliveries.deliveries_have_their_event,
            checks_deliveries.deliveries_have_a_body,
            checks_deliveries.delivery_attempts_are_numbered,
            checks_deliveries.sending_worker_lives,
            checks_deliveries.sent_deliveries_have_an_open_attempt,
            checks_deliveries.delivered_means_it_was_taken,
            checks_deliveries.deliveries_have_a_start,
            checks_deliveries.delivery_deadline_is_kept,
            checks_deliveries.waiting_deliveries_wait_for_one,
            checks_deliveries.held_deliveries_have_a_disabled_receiver,
            checks_deliveries.lanes_have_no_gap,
        ),
    ),
    TableRules(
        delivery_attempts.c.delivery_id,
        (checks_deliveries.open_delivery_attempts_are_held, checks_deliveries.delivery_attempts_have_a_delivery),
    ),
    TableRules(receivers.c.id, (checks_deliveries.disabled_receivers_say_why,)),
)

# Broken for a moment while the workers go about mending it: an offender is one only if it still is a lease later.
# The ids these yield are keys of their walk.
SETTLING: Final = frozenset(
    {
        checks.holder_lives,
        checks.deadline_is_kept,
        checks.cancellation_is_heard,
        checks.ended_leases_are_struck,
        feed.cancellations_are_served,
        checks_endpoints.rest_is_probed,
        checks_endpoints.slow_start_ends,
        checks_deliveries.sending_worker_lives,
        checks_deliveries.delivery_deadline_is_kept,
        checks_deliveries.waiting_deliveries_wait_for_one,
        checks_deliveries.held_deliveries_have_a_disabled_receiver,
    }
)
