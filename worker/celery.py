"""The entrance of `celery -A worker`: the application of worker.app."""

from worker.app import app

__all__ = ["app"]
