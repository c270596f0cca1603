"""Settings, second step: where a setting's text comes from (the environment, a file, TOML), with every fault noted."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from worker.settings.masking import shown
from worker.settings.values import Reader

PREFIX = "AFTERWORD_"
SECRET = "(not shown)"  # noqa: S105  what an error prints instead of a secret


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment's texts by name; faults are gathered as sentences in `errors`, none is raised."""

    names: Mapping[str, str]
    errors: list[str] = field(default_factory=list)

    def text(self, name: str, *, secret: bool = False) -> str | None:
        """Return a variable's text, for a secret else its `_FILE`'s content; empty counts as absent.

        Without line breaks at its end: `echo` makes one, and Kubernetes passes it on.
        """
        direct = self.names.get(name, "").rstrip("\r\n")
        file = self.names.get(f"{name}_FILE", "").rstrip("\r\n") if secret else ""
        if direct and file:
            self.errors.append(f"{name} and {name}_FILE are both set; keep one of them.")
        if direct or not file:
            return direct or None
        return self.read_secret(f"{name}_FILE", Path(file))

    def read_secret(self, name: str, path: Path) -> str | None:
        """Return a file's text without the line break at its end, or None with the fault noted."""
        try:
            # Editors on Windows begin a text with a mark of its encoding.
            text = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.errors.append(f"{name} is {str(path)!r}, which cannot be read ({reason}); name a readable file.")
            return None
        if not text:
            self.errors.append(f"{name} is {str(path)!r}, which is empty; put the secret into it.")
        return text or None

    def value(self, name: str, text: str | None, reader: Reader, *, secret: bool = False) -> Any:
        """Return the value of `text`, or None when there is none or its fault has been noted under `name`."""
        if text is None:
            return None
        try:
            return reader.read(text)
        except ValueError as error:
            self.errors.append(f"{name} is {SECRET if secret else shown(text)}; {error}.")
            return None


def nearest(name: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known one, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."


def unknown_names(environment: Environment, known: list[str]) -> None:
    """Note every variable that begins with AFTERWORD_ and is none of ours."""
    tails = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(environment.names):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name.removeprefix(PREFIX), tails, n=1, cutoff=0.6)
            remedy = (
                f"did you mean {PREFIX}{close[0]}?" if close else "`afterword config --reference` lists all settings."
            )
            environment.errors.append(f"{name} is no setting; {remedy}")


def toml(environment: Environment, path: Path) -> dict[str, Any]:
    """Return a TOML file's content, or {} with the fault noted."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        environment.errors.append(f"AFTERWORD_CONFIG is {str(path)!r}, which cannot be read ({error.strerror}).")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        environment.errors.append(f"AFTERWORD_CONFIG is {str(path)!r}, which is not TOML: {error}.")
    return {}
