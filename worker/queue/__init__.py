"""Redis: connections, the queues' lists and their entries, and Celery's consumer."""
