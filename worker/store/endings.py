"""What a job's row says when it ends without an answer, or is taken back: one text for each, in all its columns."""

from typing import Any

from worker.core.failure import FATES, Code
from worker.core.storable_text import clean_json


def ending(code: Code) -> dict[str, Any]:
    """Return the three error columns of a job that ends, or waits again, because of `code`."""
    message = FATES[code].sentence
    return {"error_code": code, "error_message": message, "error": clean_json({"code": code, "message": message})}
