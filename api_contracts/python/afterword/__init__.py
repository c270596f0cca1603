"""Afterword for producers: put chat completions into the background, and read what became of them.

    client      Afterword: submit, enqueue, enqueue_many, get, wait, cancel, replay
    message     a request and its options become the job message, the text that both doors carry
    queue       the first door: one Celery message, pushed to Redis
    inbox       the second door: rows of submit_v1, in the caller's own transaction
    reading     jobs_v1, by URL or through an Engine
    orders      cancel_v1 and replay_v1: one INSERT each
    job         what a row of jobs_v1 says
    dbapi       one statement on whatever connection there is
    webhook     verify_webhook: what came is from us, unchanged, just now

Imports the standard library and, when something is submitted, the Redis client; nothing of the worker.
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
