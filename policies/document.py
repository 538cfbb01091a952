"""Strict JSON: a document is what it says, or it is refused with a code, a place and the way out."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["Fields", "PolicyFileError", "check_number", "parse_document"]

DEPTH_LIMIT = 12


class PolicyFileError(ValueError):
    """A policy file that is refused: a stable ``code``, the ``place`` in the document, and the way out."""

    def __init__(self, code: str, place: str, message: str) -> None:
        super().__init__(f"{code} at {place}: {message}" if place else f"{code}: {message}")
        self.code = code
        self.place = place
        self.message = message


def parse_document(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes.

    Raises:
        PolicyFileError: not UTF-8, not JSON, too deep, a key twice, a number that is not finite, a lone surrogate.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyFileError("E_ENCODING", f"byte {error.start}", "is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise PolicyFileError("E_ENCODING", "byte 0", "is a byte-order mark; save the file without one")
    _check_depth(text)
    try:
        document = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise PolicyFileError("E_SYNTAX", place, f"{error.msg}; truncated? write the file again") from None
    if not isinstance(document, dict):
        raise PolicyFileError("E_SCHEMA", "document", "is not a JSON object: not a policy file")
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = error.object[max(error.start - 20, 0) : error.start + 1]
        raise PolicyFileError("E_ENCODING", repr(text), "has a lone surrogate") from None
    return document


def _check_depth(text: str) -> None:
    depth, quoted, escaped = 0, False, False
    for letter in text:
        if quoted:
            quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise PolicyFileError("E_DEPTH", "", f"nested deeper than {DEPTH_LIMIT} levels")
        elif letter in "]}":
            depth -= 1


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PolicyFileError("E_DUPKEY", repr(twice), "stands twice in one object")
    return dict(pairs)


def _no_constants(name: str) -> NoReturn:
    raise PolicyFileError("E_NONFINITE", name, "is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_constants(text)
    return value


def _whole(text: str) -> int:
    if len(text) > 19:
        raise PolicyFileError("E_RANGE", text[:24], "is too large a whole number")
    return int(text)


class Fields:
    """One JSON object under inspection: every key is asked for by name and type, then none may be left."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise PolicyFileError("E_TYPE", place, f"is {_kind(value)}, not an object")
        self.value = value
        self.place = place
        self._left = set(value)

    def fail(self, code: str, key: str, message: str) -> NoReturn:
        """Refuse the document for what stands at ``key``."""
        raise PolicyFileError(code, f"{self.place}.{key}", message)

    def get(self, key: str) -> Any:
        """What stands at ``key``, which must be there."""
        if key not in self.value:
            self.fail("E_SCHEMA", key, "is missing")
        self._left.discard(key)
        return self.value[key]

    def has(self, key: str) -> bool:
        """Whether the object has this key."""
        return key in self.value

    def end(self) -> None:
        """Refuse the object if it has a key that was not asked for."""
        for key in sorted(self._left):
            self.fail("E_SCHEMA", key, "is not a known key")

    def text(self, key: str) -> str:
        """The text at ``key``."""
        value = self.get(key)
        if not isinstance(value, str):
            self.fail("E_TYPE", key, f"is {_kind(value)}, not text")
        return value

    def whole(self, key: str, high: int | None = None) -> int:
        """The whole number at ``key``, from 0 to below ``high``."""
        value = self.get(key)
        if type(value) is not int:
            self.fail("E_TYPE", key, f"is {_kind(value)}, not a whole number")
        if value < 0 or (high is not None and value >= high):
            self.fail("E_RANGE", key, f"is {value}, outside 0 .. {'' if high is None else high - 1}")
        return value

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """The number at ``key``, in [low, high]."""
        return check_number(self.get(key), f"{self.place}.{key}", low, high)

    def numbers(self, key: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        """The numbers in the array at ``key``, each in [low, high]."""
        return tuple(check_number(v, f"{self.place}.{key}[{i}]", low, high) for i, v in enumerate(self.array(key)))

    def wholes(self, key: str) -> tuple[int, ...]:
        """The whole numbers in the array at ``key``, each at least 0."""
        for i, value in enumerate(self.array(key)):
            if type(value) is not int:
                self.fail("E_TYPE", f"{key}[{i}]", f"is {_kind(value)}, not a whole number")
            if value < 0:
                self.fail("E_RANGE", f"{key}[{i}]", f"is {value}, below 0")
        return tuple(self.value[key])

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts in the array at ``key``."""
        for i, value in enumerate(self.array(key)):
            if not isinstance(value, str):
                self.fail("E_TYPE", f"{key}[{i}]", f"is {_kind(value)}, not text")
        return tuple(self.value[key])

    def array(self, key: str) -> list[Any]:
        """The array at ``key``."""
        value = self.get(key)
        if not isinstance(value, list):
            self.fail("E_TYPE", key, f"is {_kind(value)}, not an array")
        return value

    def objects(self, key: str) -> list[Fields]:
        """The objects in the array at ``key``."""
        return [
            Fields(item, f"{self.place}.{key}[{i}]".removeprefix("document.")) for i, item in enumerate(self.array(key))
        ]

    def object(self, key: str) -> Fields:
        """The object at ``key``."""
        return Fields(self.get(key), f"{self.place}.{key}".removeprefix("document."))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


def check_number(value: Any, place: str, low: float, high: float) -> float:
    """The value as a float in [low, high].

    Raises:
        PolicyFileError: it is none.
    """
    if type(value) not in (int, float):
        raise PolicyFileError("E_TYPE", place, f"is {_kind(value)}, not a number")
    if not low <= value <= high:
        raise PolicyFileError("E_RANGE", place, f"is {value}, outside [{low:g}, {high:g}]")
    return float(value)
