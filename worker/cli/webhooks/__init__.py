"""`afterword webhooks`: receivers of webhooks and their deliveries, one module for each topic."""

import click

from worker.cli.support.lazy_commands import LazyCommands, examples


@click.group(
    commands=LazyCommands(
        {
            "add": "worker.cli.webhooks.add:add",
            "attempts": "worker.cli.webhooks.deliveries:attempts",
            "change": "worker.cli.webhooks.update:change",
            "deliveries": "worker.cli.webhooks.deliveries:deliveries",
            "disable": "worker.cli.webhooks.enable:disable",
            "enable": "worker.cli.webhooks.enable:enable",
            "list": "worker.cli.webhooks.show:list_",
            "recover": "worker.cli.webhooks.recoveries:recover",
            "recoveries": "worker.cli.webhooks.recoveries:recoveries",
            "redeliver": "worker.cli.webhooks.deliveries:redeliver",
            "remove": "worker.cli.webhooks.remove:remove",
            "rotate": "worker.cli.webhooks.rotate:rotate",
            "show": "worker.cli.webhooks.show:show",
            "test": "worker.cli.webhooks.test:test",
            "update": "worker.cli.webhooks.update:update",
        }
    ),
    epilog=examples(
        "afterword webhooks add billing https://billing.example.com/hooks --default",
        "afterword webhooks test billing --wait 20",
        "afterword webhooks deliveries list --receiver billing --status queued",
    ),
)
def webhooks() -> None:
    """Register receivers of webhooks, and manage deliveries.

    A receiver is an address with its settings; a delivery is one event for one receiver. ops/webhooks.md is the guide.
    """
