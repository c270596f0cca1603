"""Makes text safe for a terminal, a log line or a table cell. Used by the commands, the log and error messages.

A model's answer, a tenant's name or a dead letter may contain terminal escapes. They can change the screen, the window
title or the clipboard of the operator who reads them (CWE-150).
"""

import re
import unicodedata
from typing import Any, Final

# C0 without tab and newline; DEL and C1, with the 8-bit CSI; marks and overrides of text direction (Trojan Source,
# CVE-2021-42574); line and paragraph separators; surrogates.
_UNSAFE: Final = (
    *(code for code in range(0x20) if code not in (0x09, 0x0A)),
    *range(0x7F, 0xA0),
    0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    0x2028, 0x2029,
    *range(0xD800, 0xE000),
)  # fmt: skip
_VISIBLE: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _UNSAFE}
# Control characters, format characters, line and paragraph separators.
_INVISIBLE: Final = ("Cc", "Cf", "Zl", "Zp")
_spaces = re.compile(r"\s+")


def printable(text: str) -> str:
    """Return `text` with each control character as a visible escape: ESC `[31m` becomes the text `\\x1b[31m`.

    Joiners such as U+200D stay, because emoji and some scripts need them.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_VISIBLE)


def printable_json(text: str) -> str:
    """Return JSON text of the same meaning without control characters. `text` must have none outside of its strings."""
    return text.translate(_IN_JSON)


def printable_values(value: Any) -> Any:
    """Return a value of a log line with every string in it made printable."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable_values(key): printable_values(inner) for key, inner in value.items()}
        case list() | tuple():
            return [printable_values(inner) for inner in value]
    return value


def one_line(text: str) -> str:
    """Return `text` on one line: each run of spaces, control and format characters becomes one space.

    Stricter than `printable`: all invisible characters go, because the line is shown inside a sentence of ours.
    """
    plain = "".join(" " if unicodedata.category(char) in _INVISIBLE else char for char in text)
    return _spaces.sub(" ", plain).strip()
