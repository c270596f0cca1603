"""Every rule, by the table whose rows it checks. A new rule is a function in this package and its place here."""

from typing import Final

from worker.store import tables
from worker.verify import deliveries, endpoints, events, feed, jobs, usage
from worker.verify.rule import TableRules
from worker.webhooks.store import tables as webhook_tables

RULES: Final = (
    TableRules(
        tables.jobs.c.id,
        (
            jobs.status_is_known,
            jobs.only_running_jobs_are_held,
            jobs.holder_lives,
            jobs.deadline_is_kept,
            jobs.cancellation_is_heard,
            jobs.finish_is_dated,
            feed.feed_has_what_is_final,
            jobs.request_is_kept,
            jobs.attempts_are_numbered,
            jobs.running_jobs_have_an_open_attempt,
            jobs.budget_is_kept,
            jobs.answer_is_kept,
            jobs.answer_is_used,
            events.ends_are_told,
            events.ends_are_told_once,
        ),
    ),
    TableRules(
        tables.attempts.c.job_id,
        (jobs.open_attempts_are_held, jobs.attempts_have_a_job, usage.usage_is_what_was_reported),
    ),
    TableRules(tables.answers.c.job_id, (jobs.answers_have_an_attempt,)),
    TableRules(tables.requests.c.job_id, (jobs.requests_have_a_job,)),
    TableRules(tables.aliases.c.id, (jobs.aliases_lead_to_a_job,)),
    TableRules(tables.cancellations.c.id, (feed.cancellations_are_served,)),
    TableRules(tables.finished.c.cursor, (feed.finished_jobs_exist,)),
    TableRules(tables.workers.c.id, (jobs.ended_leases_are_struck,)),
    TableRules(tables.counters.c.name, (feed.counter_knows_every_number,)),
    TableRules(
        tables.endpoints.c.name,
        (
            endpoints.rest_has_a_cause,
            endpoints.probes_are_jobs,
            endpoints.rest_is_probed,
            endpoints.slow_start_ends,
        ),
    ),
    TableRules(
        webhook_tables.events.c.id,
        (
            events.events_are_delivered,
            events.events_have_a_job,
            events.events_tell_an_end,
            events.bodies_are_of_their_job,
        ),
    ),
    TableRules(
        webhook_tables.deliveries.c.id,
        (
            deliveries.deliveries_have_their_event,
            deliveries.deliveries_have_a_body,
            deliveries.delivery_attempts_are_numbered,
            deliveries.sending_worker_lives,
            deliveries.sent_deliveries_have_an_open_attempt,
            deliveries.delivered_means_it_was_taken,
            deliveries.deliveries_have_a_start,
            deliveries.delivery_deadline_is_kept,
            deliveries.waiting_deliveries_wait_for_one,
            deliveries.held_deliveries_have_a_disabled_receiver,
            deliveries.lanes_have_no_gap,
        ),
    ),
    TableRules(
        webhook_tables.delivery_attempts.c.delivery_id,
        (deliveries.open_delivery_attempts_are_held, deliveries.delivery_attempts_have_a_delivery),
    ),
    TableRules(webhook_tables.receivers.c.id, (deliveries.disabled_receivers_say_why,)),
)

# Workers repair faults of these rules by themselves: a row counts only if it still breaks the rule a lease later.
# The ids that these rules yield are keys of their table.
SETTLING: Final = frozenset(
    {
        jobs.holder_lives,
        jobs.deadline_is_kept,
        jobs.cancellation_is_heard,
        jobs.ended_leases_are_struck,
        feed.cancellations_are_served,
        endpoints.rest_is_probed,
        endpoints.slow_start_ends,
        deliveries.sending_worker_lives,
        deliveries.delivery_deadline_is_kept,
        deliveries.waiting_deliveries_wait_for_one,
        deliveries.held_deliveries_have_a_disabled_receiver,
    }
)
