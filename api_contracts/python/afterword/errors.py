"""What can go wrong for a producer that is no mistake in its arguments; every text ends with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afterword.job import Job


class NotConfigured(RuntimeError):
    """An address or a driver that this call needs is missing."""


class SubmitError(RuntimeError):
    """Redis did not confirm the job. It may have arrived all the same: submit again with `id=error.id`."""

    def __init__(self, message: str, id: str) -> None:
        super().__init__(message)
        self.id = id

    def __reduce__(self) -> tuple[type[SubmitError], tuple[str, str]]:
        return SubmitError, (str(self), self.id)


class WaitTimeout(TimeoutError):
    """The job had not ended in time. It goes on; `job` is its last known state, None if no worker has seen it yet."""

    def __init__(self, message: str, job: Job | None) -> None:
        super().__init__(message)
        self.job = job

    @classmethod
    def of(cls, id: str, job: Job | None, timeout_s: float) -> WaitTimeout:
        """Say where the job `id` is after so many seconds, and what it waits for."""
        if job is None:
            return cls(
                f"no worker accepted job {id} within {timeout_s:g} s; see that one runs on the same Redis and database",
                None,
            )
        state = f"{job.status}, waiting for: {job.waiting_for}" if job.waiting_for else job.status
        if job.waiting_for and job.error_code:
            state += f" ({job.error_code}: {job.error_message})"
        return cls(f"job {id} is still {state} after {timeout_s:g} s; it goes on, wait again or get it", job)


class WebhookVerificationError(ValueError):
    """A request is not a webhook to be believed; answer it with 400. `reason` says why in a word.

    missing_header, bad_timestamp, too_old, too_new, no_matching_signature, not_json; and bad_secret, ours to mend.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[WebhookVerificationError], tuple[str, str]]:
        return WebhookVerificationError, (str(self), self.reason)
