"""`afterword webhooks add`: register a receiver."""

from collections.abc import Sequence
from typing import Any, TextIO

import click

from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.webhooks.receiver_lookup import receiving
from worker.cli.webhooks.receiver_options import given_values, header_lines, receiver_options, registration
from worker.cli.webhooks.show import print_secrets


@click.command(
    epilog=examples(
        "afterword webhooks add billing https://billing.example.com/hooks --default",
        "afterword webhooks add audit https://a.example/in --event job.failed",
        "afterword webhooks add old https://b.example/in --secret-file - < secret",
    )
)
@click.argument("name")
@click.argument("url")
@tenant_option
@click.option("--default", "is_default", is_flag=True, help="Send it the events of jobs that name no receiver.")
@click.option(
    "--secret-file", type=click.File(), help="Keep this whsec_ secret; the file holds only it (-: standard input)."
)
@receiver_options
@json_option
def add(
    name: str,
    url: str,
    headers: Sequence[str],
    header_file: TextIO | None,
    secret_file: TextIO | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Register a receiver and print its signing secret.

    The secret is never shown again. A receiver that already verifies with a secret keeps it with --secret-file; it is
    then not printed. Deliveries that jobs have addressed to NAME before are sent now.
    """
    from worker.cli.webhooks.registration import add_receiver, hmac_text, imported_secret
    from worker.webhooks import sealed_fields
    from worker.webhooks.vault import fingerprint

    chosen = registration(name, given_values(given))
    imported = imported_secret(secret_file)
    with receiving() as command:
        shown, keys = add_receiver(command, chosen, url, header_lines(headers, header_file), imported=imported)
    secret = hmac_text(keys)
    print_secrets(
        shown | {"fingerprint": fingerprint(secret)},
        secret=None if secret == imported else secret,
        public_key=sealed_fields.public_text(keys),
        as_json=as_json,
    )
