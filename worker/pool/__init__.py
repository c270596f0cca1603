"""The Celery task pool: async tasks on one event loop."""
