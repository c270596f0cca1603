"""Exceptions for failures outside the arguments of a call. Every message ends with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afterword.job import Job


class NotConfigured(RuntimeError):
    """A URL or a driver that the call needs is missing or unknown."""


class SubmitError(RuntimeError):
    """Redis did not confirm the job, but may have it. Submit again with `id=error.id`: this makes no second job."""

    def __init__(self, message: str, id: str) -> None:
        super().__init__(message)
        self.id = id

    def __reduce__(self) -> tuple[type[SubmitError], tuple[str, str]]:
        return SubmitError, (str(self), self.id)


class WaitTimeout(TimeoutError):
    """The job has not ended in time; it goes on. `job` is its last known state, None if no worker has accepted it."""

    def __init__(self, message: str, job: Job | None) -> None:
        super().__init__(message)
        self.job = job

    @classmethod
    def of(cls, id: str, job: Job | None, timeout_s: float) -> WaitTimeout:
        """Build the error: the state of job `id` after `timeout_s` seconds, and the reason why it waits."""
        if job is None:
            return cls(
                f"no worker accepted job {id} within {timeout_s:g} s; check that a worker runs on the "
                "same Redis and database",
                None,
            )
        state = f"{job.status}, waiting for: {job.waiting_for}" if job.waiting_for else job.status
        if job.waiting_for and job.error_code:
            state += f" ({job.error_code}: {job.error_message})"
        return cls(f"job {id} is still {state} after {timeout_s:g} s; it goes on: wait again, or get it later", job)


class WebhookVerificationError(ValueError):
    """The request is not a valid webhook; answer it with 400. `reason` is one word:

    missing_header, bad_timestamp, too_old, too_new, no_matching_signature, not_json; or bad_secret, a mistake in the
    receiver's own configuration.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[WebhookVerificationError], tuple[str, str]]:
        return WebhookVerificationError, (str(self), self.reason)
