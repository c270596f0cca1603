"""`afterword fake-endpoint`: serve the fake endpoint for tests."""

import contextlib
import signal
import sys
from typing import Literal

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples


@click.command(
    "fake-endpoint",
    epilog=examples(
        "afterword fake-endpoint",
        "afterword fake-endpoint --port 0 --key sk-test",
        "afterword fake-endpoint --limits limits.toml",
    ),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8099, show_default=True, help="The port; 0: a free one.")
@click.option("--key", help="Accept only this Bearer key; default: any.")
@click.option(
    "--idempotency",
    type=click.Choice(["ignored", "honoured"]),
    default="ignored",
    show_default=True,
    help="How to treat the header Idempotency-Key.",
)
@click.option("--limits", help="Rate limits: JSON, or the name of a TOML or JSON file; default: none.")
def fake_endpoint(
    host: str, port: int, key: str | None, idempotency: Literal["ignored", "honoured"], limits: str | None
) -> None:
    """Serve an endpoint that costs nothing and fails on request.

    The model's name chooses the answer or the failure: see ops/fake_endpoint.md. Ctrl-C stops it.
    """
    import asyncio

    from worker.dev.fake.limits import BadLimits
    from worker.dev.fake_endpoint import serve
    from worker.settings.sources import PREFIX

    def ready(url: str) -> None:
        output.echo(f"{url}  (export {PREFIX}ENDPOINT_URL={url})")
        sys.stdout.flush()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve(host=host, port=port, key=key, idempotency=idempotency, ready=ready, limits=limits)

    try:
        asyncio.run(run())
    except OSError as error:
        raise click.ClickException(f"port {port} of {host} cannot be opened: {error.strerror}") from error
    except BadLimits as error:
        raise click.ClickException(str(error)) from error
