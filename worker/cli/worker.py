"""`afterword worker`: run a Celery worker with our application."""

import click

from worker.cli.support.lazy_commands import examples
from worker.cli.support.settings import load


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog=examples(
        "afterword worker",
        "afterword worker -c 500               # 500 calls in flight",
        "afterword worker -Q webhooks          # only deliver webhooks",
    ),
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(celery_options: tuple[str, ...]) -> None:
    """Run a worker.

    Options after it are Celery's. The same as `celery -A worker.app worker`, but from any folder, even beside a
    worker.py of your own.
    """
    load()  # Report every fault of the settings before Celery starts.
    # By now `worker` is our package; Celery's -A would find a worker.py of the current folder first.
    from worker.app import app

    app.worker_main(["worker", *celery_options])
