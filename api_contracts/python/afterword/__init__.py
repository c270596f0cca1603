"""Client package of Afterword: submit chat completions, read their results, verify webhooks.

    client      Afterword: submit, enqueue, enqueue_many, get, wait, cancel, replay
    message     builds the job message, a JSON text, from a request and its options
    queue       sends a job by Redis: one Celery message, one LPUSH
    sentinel    parses the URL of a Redis behind Sentinel
    inbox       sends jobs by SQL: rows of submit_v1, in the caller's transaction
    reading     reads jobs_v1, by URL or through an Engine
    orders      cancels and replays: one INSERT into cancel_v1 or replay_v1
    job         Job: one row of jobs_v1
    dbapi       runs one statement on any supported connection
    webhook     verify_webhook: checks the signature and the age of a webhook
    errors      the exceptions

The import loads the standard library alone. `submit` loads the Redis client; nothing loads the worker.
"""

from afterword.client import Afterword
from afterword.errors import NotConfigured, SubmitError, WaitTimeout, WebhookVerificationError
from afterword.job import Job
from afterword.webhook import verify_webhook

__all__ = [
    "Afterword",
    "Job",
    "NotConfigured",
    "SubmitError",
    "WaitTimeout",
    "WebhookVerificationError",
    "verify_webhook",
]
