"""For `celery -A worker`: the application is worker.app's."""

from worker.app import app

__all__ = ["app"]
