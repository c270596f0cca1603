"""Durations as people write them: `90`, `90s`, `30m`, `6h`, `2d`, `1.5h`."""

import math
import re
from typing import Final

REMEDY: Final = "write seconds, or a duration such as 90s, 30m, 6h or 2d"
_with_unit = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII).fullmatch
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def has_unit(text: str) -> bool:
    """Say whether a text is a duration with its unit, such as `6h`; False for a plain number."""
    return _with_unit(text) is not None


def seconds(text: str) -> float:
    """Return the seconds of a duration; a number without a unit is in seconds. ValueError gives the remedy."""
    if (found := _with_unit(text)) is not None:
        return float(found[1]) * _SECONDS[found[2]]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(REMEDY)
    return number
