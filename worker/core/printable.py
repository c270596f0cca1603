"""Text that is safe on a terminal: control characters become visible escapes. Used by the commands and the log.

A model's answer, a tenant's name or a dead letter may hold terminal escapes that change the screen, the window's title
or the clipboard of the operator who looks at them (CWE-150).
"""

from typing import Any, Final

# C0 but tab and newline; DEL and C1, which hold an 8-bit CSI; marks and overrides of text direction (Trojan Source,
# CVE-2021-42574); line and paragraph separators.
_UNSAFE: Final = (
    *(code for code in range(0x20) if code not in (0x09, 0x0A)),
    *range(0x7F, 0xA0),
    0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    0x2028, 0x2029,
    *range(0xD800, 0xE000),
)  # fmt: skip
_VISIBLE: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _UNSAFE}


def printable(text: str) -> str:
    """Return `text` with each control character as an escape: `\\x1b[31m` in four visible characters and `[31m`."""
    return text if text.isascii() and text.isprintable() else text.translate(_VISIBLE)


def printable_json(text: str) -> str:
    """Return JSON text that means the same and holds no control character; `text` has none outside of strings."""
    return text.translate(_IN_JSON)


def printable_values(value: Any) -> Any:
    """Return a value of a log line with all texts in it printable."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable_values(key): printable_values(inner) for key, inner in value.items()}
        case list() | tuple():
            return [printable_values(inner) for inner in value]
    return value
