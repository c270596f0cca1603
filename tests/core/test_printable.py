"""No control character reaches a terminal, and JSON keeps its meaning."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.printable import printable, printable_json

UNSAFE = {"Cc", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb\nc é 🙂 שלום", "a\tb\nc é 🙂 שלום"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]52;c;cm0=\x07", "\\x1b]52;c;cm0=\\x07"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("over\rwritten\b", "over\\x0dwritten\\x08"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    left = {char for char in printable(text) if unicodedata.category(char) in UNSAFE}
    assert left <= {"\t", "\n"}


@given(st.text(st.characters(exclude_categories=())))
def test_json_means_the_same(text: str) -> None:
    shown = printable_json(json.dumps({text: text}, ensure_ascii=False))
    assert json.loads(shown) == {text: text}
    assert not {char for char in shown if unicodedata.category(char) in UNSAFE}
