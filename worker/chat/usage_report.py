"""Chooses the usage object of an answer and keeps its exact text (rule R12). Used by `stream` and `answer`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from worker.core.exact_json import elements, members

SOURCES = ("top", "choice", "x_groq")
"""The places of usage in an answer; the first with a number above 0 wins. Moonshot uses a choice, Groq `x_groq`."""


# A NamedTuple, because it is cheaper than a dataclass and some providers report usage in every chunk.
class UsageReport(NamedTuple):
    """One usage object: `text` is the JSON text around it, `path` its place there, such as `("choices", 0, "usage")`.

    `spent`: any of its numbers is not zero.
    """

    source: str
    value: dict[str, Any]
    text: str
    path: tuple[str | int, ...]
    spent: bool

    def exact(self) -> bytes:
        """Return the exact text of the usage object, as UTF-8."""
        text = self.text
        for step in self.path:
            member = members(text)[step] if isinstance(step, str) else elements(text)[step]
            text = text[member.start : member.end]
        return text.encode("utf-8", "replace")


class UsageReports:
    """Collects usage chunk by chunk. The last object counts, never a sum.

    An object with only zeros does not replace an object with a number above 0.
    """

    __slots__ = ("_by_choice", "_closing", "_held", "flags")

    def __init__(self) -> None:
        self._held: dict[str, UsageReport] = {}
        self._closing: dict[str, Any] | None = None
        self._by_choice: tuple[object, dict[str, Any]] | None = None
        self.flags: tuple[str, ...] = ()

    def note(self, chunk: Mapping[str, Any], text: str) -> None:
        """Keep the usage in a chunk or a whole answer; `text` is the JSON text of `chunk`."""
        choices = chunk.get("choices")
        self.note_top(chunk.get("usage"), text, is_closing=not choices)
        if type(choices) is list:
            for place, choice in enumerate(choices):
                if type(choice) is dict and type(usage := choice.get("usage")) is dict:
                    self._keep(_report("choice", usage, text, "choices", place, "usage"))
                    self._note_choice(choice.get("index", place), usage)
        groq = chunk.get("x_groq")
        if type(groq) is dict and type(usage := groq.get("usage")) is dict:
            self._keep(_report("x_groq", usage, text, "x_groq", "usage"))

    def note_top(self, usage: Any, text: str, *, is_closing: bool) -> None:
        """Keep the usage at the top of a chunk, its usual place; `is_closing`: the chunk has no choices."""
        if type(usage) is dict:
            self._keep(_report("top", usage, text, "usage"))
            if is_closing:
                self._note_closing(usage)

    def chosen(self) -> UsageReport | None:
        """Return the usage object that counts, None if there is none."""
        found = [self._held[source] for source in SOURCES if source in self._held]
        return next((report for report in found if report.spent), found[0] if found else None)

    def _keep(self, report: UsageReport) -> None:
        held = self._held.get(report.source)
        if held is None or report.spent or not held.spent:
            self._held[report.source] = report

    def _note_closing(self, usage: dict[str, Any]) -> None:
        """Flag a second, different closing usage: llama.cpp sends one per choice, so the last is too low."""
        if _spent(usage):
            if self._closing is not None and self._closing != usage:
                self.flags = ("multiple_usage",)
            self._closing = usage

    def _note_choice(self, index: object, usage: dict[str, Any]) -> None:
        if _spent(usage):
            if self._by_choice is not None and self._by_choice[0] != index and self._by_choice[1] != usage:
                self.flags = ("multiple_usage",)
            self._by_choice = index, usage


def _report(source: str, usage: dict[str, Any], text: str, *path: str | int) -> UsageReport:
    return UsageReport(source, usage, text, path, _spent(usage))


def _spent(value: object) -> bool:
    """Say whether any number in a usage object is not zero. Recursion is safe: `read` limits the nesting."""
    if isinstance(value, dict):
        return any(_spent(inner) for inner in value.values())
    if isinstance(value, str):
        return value.isdigit() and value.strip("0") != ""
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0
