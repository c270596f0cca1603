"""The exit code of every command, in one table; README.md prints it."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The end of a command, for the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ENDED_OTHERWISE = 3
    NOT_IN_TIME = 4
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "The command succeeded.",
    ExitCode.FAILED: (
        "The command failed, and standard error gives the remedy. Or a check found a fault: `doctor`, `verify`, "
        "`secrets check`, `secrets rotate`, `demo`, `webhooks test --wait`."
    ),
    ExitCode.USAGE: "The command line is wrong. Nothing was done.",
    ExitCode.ENDED_OTHERWISE: (
        "`wait`, `submit --wait`: the job failed, was cancelled or expired. `cancel`, `replay`, `dead-letters "
        "requeue`: at least one job or dead letter could not be changed."
    ),
    ExitCode.NOT_IN_TIME: "`wait`, `submit --wait`, `webhooks test --wait`: the time ended first.",
    ExitCode.INTERRUPTED: "Ctrl-C stopped `demo`.",
}
