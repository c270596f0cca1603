"""Settings, second step: gets the text of a setting from the environment, a file or TOML, and collects the faults."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from worker.settings.masks import shown
from worker.settings.values import Reader

PREFIX = "AFTERWORD_"
SECRET = "(not shown)"  # noqa: S105  error sentences print this instead of a secret


@dataclass(frozen=True, slots=True)
class Environment:
    """Environment variables by name. Faults are not raised: each adds a sentence to `errors`."""

    names: Mapping[str, str]
    errors: list[str] = field(default_factory=list)

    def text(self, name: str, *, secret: bool = False) -> str | None:
        """Return the text of a variable, for a secret else the content of its `_FILE`. None if it is absent or empty.

        Line breaks at the end are removed: `echo` writes a line break, and Kubernetes passes it on.
        """
        direct = self.names.get(name, "").rstrip("\r\n")
        file = self.names.get(f"{name}_FILE", "").rstrip("\r\n") if secret else ""
        if direct and file:
            self.errors.append(f"{name} and {name}_FILE are both set; keep one of them.")
        if direct or not file:
            return direct or None
        return self.read_secret(f"{name}_FILE", Path(file))

    def read_secret(self, name: str, path: Path) -> str | None:
        """Return the text of a file without line breaks at its end; on a fault add a sentence and return None."""
        try:
            # utf-8-sig, because editors on Windows write a byte order mark.
            text = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.errors.append(f"{name} is {str(path)!r}, but it cannot be read ({reason}); name a readable file.")
            return None
        if not text:
            self.errors.append(f"{name} is {str(path)!r}, but it is empty; put the secret into it.")
        return text or None

    def value(self, name: str, text: str | None, reader: Reader, *, secret: bool = False) -> Any:
        """Return the value of `text`; None if `text` is None. On a fault add a sentence about `name`, return None."""
        if text is None:
            return None
        try:
            return reader.read(text)
        except ValueError as error:
            self.errors.append(f"{name} is {SECRET if secret else shown(text)}; {error}.")
            return None


def nearest(name: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown name: `did you mean url?`, or else the list of known names."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."


def unknown_names(environment: Environment, known: list[str]) -> None:
    """Add a sentence for every AFTERWORD_ variable that is not in `known`."""
    tails = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(environment.names):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name.removeprefix(PREFIX), tails, n=1, cutoff=0.6)
            remedy = (
                f"did you mean {PREFIX}{close[0]}?" if close else "`afterword config --reference` lists all settings."
            )
            environment.errors.append(f"{name} is not a setting; {remedy}")


def toml(environment: Environment, path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; on a fault add a sentence and return {}."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        environment.errors.append(
            f"AFTERWORD_CONFIG is {str(path)!r}, but it cannot be read ({error.strerror}); name a readable file."
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        environment.errors.append(f"AFTERWORD_CONFIG is {str(path)!r}, but it is not TOML: {error}.")
    return {}
