"""An operator who types commands with the settings of the workers."""

import json
from typing import Any

from click.testing import CliRunner, Result

from tests.flow.receivers import ALLOWED
from tests.flow.system import System
from tests.pool.workers import until
from worker.cli import main


class Operator:
    """Runs commands like an operator at a terminal with the settings of the workers."""

    def __init__(self, system: System) -> None:
        self.environment = system.environment(**ALLOWED)

    def types(self, line: str) -> Result:
        result = CliRunner().invoke(main, line.split(), env=self.environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    def json_of(self, line: str) -> Any:
        return json.loads(self.types(f"{line} --json").stdout)

    def await_statuses(self, *wanted: str) -> None:
        """Wait until the deliveries, oldest first, have these statuses."""
        until(
            lambda: [one["status"] for one in self.json_of("webhooks deliveries")][::-1] == list(wanted),
            what=f"{wanted}",
        )
