"""Strict JSON: a document is read in bounds and is what it says, or is refused with a code, a place and the way out."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Sequence

from metaverify.policies.names import did_you_mean, name_fault

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["SIZE_LIMIT", "Fields", "PolicyFileError", "check_number", "parse_document", "read_at_most"]

SIZE_LIMIT = 1 << 20

DEPTH_LIMIT = 12
WHOLE_LIMIT = 1 << 63
LONGEST = 300  # letters of a message
OBJECTS_LIMIT = 1 << 16  # one in sixteen bytes of the largest file: none can hold more that say something
ARRAYS_LIMIT = 1 << 17
KEYS_LIMIT = 100  # of an object that is looked through for the key that was meant
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
SQUARE = bytes.maketrans(b"{}", b"[]")
NINES = bytes.maketrans(b"012345678", b"9" * 9)
LONG_WHOLE = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?!\.\d|[eE][+-]?\d)")
TO_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe is not waited for
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class PolicyFileError(ValueError):
    """A policy file that is refused: a stable ``code``, the ``place`` in the document, and the way out."""

    def __init__(self, code: str, place: str, message: str) -> None:
        message = message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}..."
        super().__init__(f"{code} at {place}: {message}" if place else f"{code}: {message}")
        self.code = code
        self.place = place
        self.message = message


def read_at_most(path: str | os.PathLike[str], limit: int, way_out: str) -> bytes:
    """What is in a file, up to one byte above the limit.

    Raises:
        PolicyFileError: E_NOTFILE, with the way out.
    """
    try:
        data = _read(path, limit + 1)
    except FileNotFoundError:
        raise PolicyFileError("E_NOTFILE", "", f"does not exist; {way_out}") from None
    except (OSError, ValueError) as error:  # a ValueError for a path with NUL
        reason = getattr(error, "strerror", None) or error
        raise PolicyFileError("E_NOTFILE", "", f"cannot be read: {reason}; {way_out}") from error
    if data is None:
        raise PolicyFileError("E_NOTFILE", "", f"is not a file; {way_out}")
    return data


def _read(path: str | os.PathLike[str], most: int) -> bytes | None:
    """What a file begins with; None where it is no plain file."""
    handle = os.open(path, TO_READ)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)


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
    _check_outline(data)
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise PolicyFileError("E_SYNTAX", place, f"{error.msg}; truncated? write the file again") from None
    if not isinstance(document, dict):
        raise PolicyFileError("E_SCHEMA", "document", "is not a JSON object: not a policy file")
    if SURROGATE.search(text):  # only an escape can bring one in
        _no_lone_surrogate(document)
    return document


def _no_lone_surrogate(document: dict[str, Any]) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = error.object[max(error.start - 20, 0) : error.start + 1]
        raise PolicyFileError("E_ENCODING", repr(text), "has a lone surrogate") from None


def _check_outline(data: bytes) -> None:
    """Refuse, before anything is built, what would take long to: nothing here runs once a value in Python."""
    outline = b" ".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])  # without texts
    brackets = outline.translate(SQUARE, NO_BRACKETS)
    for bracket, limit, kind in ((b"{", OBJECTS_LIMIT, "objects"), (b"[", ARRAYS_LIMIT, "arrays")):
        if outline.count(bracket) > limit:
            raise PolicyFileError("E_SIZE", "", f"has more than {limit:,} {kind}; no policy has")
    for _ in range(DEPTH_LIMIT):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > DEPTH_LIMIT:
        raise PolicyFileError("E_DEPTH", "", f"nested deeper than {DEPTH_LIMIT} levels")
    for whole in LONG_WHOLE.findall(outline) if b"9" * 19 in outline.translate(NINES) else ():
        if not -WHOLE_LIMIT <= int(whole[:21]) < WHOLE_LIMIT:  # 20 letters are beyond 64 bits, or all of it
            message = "is a whole number that does not fit into 64 bits"
            raise PolicyFileError("E_NUMBER", whole[:24].decode(), message)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise PolicyFileError("E_DUPKEY", shown(twice), "stands twice in one object")
    return found


def _no_constants(name: str) -> NoReturn:
    raise PolicyFileError("E_NONFINITE", name[:24], "is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_constants(text)
    return value


def shown(value: Any) -> str:
    """A value of the document as messages have it: on one line, in plain letters, and not too long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Fields:
    """One JSON object under inspection: every key is asked for by name and type, then none may be left."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise PolicyFileError("E_TYPE", place, f"is {_kind(value)}, not an object")
        self.value = value
        self.place = place
        self._known: set[str] = set()

    def fail(self, code: str, key: str, message: str) -> NoReturn:
        """Refuse the document for what stands at ``key``."""
        raise PolicyFileError(code, self._at(key), message)

    def _at(self, key: str) -> str:
        """The place of a key, as messages have it: `shown` where it is long or cannot be printed."""
        return f"{self.place}.{key if len(key) <= 60 and key.isprintable() else shown(key)[1:-1]}"

    def get(self, key: str) -> Any:
        """What stands at ``key``, which must be there."""
        self._known.add(key)
        if key not in self.value:
            few = self.value.keys() - self._known if len(self.value) <= KEYS_LIMIT else ()
            near = did_you_mean(key, (other for other in few if len(other) < 40))
            self.fail("E_SCHEMA", key, f"is missing{near}")
        return self.value[key]

    def has(self, key: str) -> bool:
        """Whether the object has this key."""
        self._known.add(key)
        return key in self.value

    def end(self) -> None:
        """Refuse the object if it has a key that was not asked for."""
        for key in sorted(self.value.keys() - self._known):
            self.fail("E_SCHEMA", key, f"is not a known key{did_you_mean(key, self._known)}")

    def text(self, key: str) -> str:
        """The text at ``key``."""
        value = self.get(key)
        if not isinstance(value, str):
            self.fail("E_TYPE", key, f"is {_kind(value)}, not text")
        return value

    def names(self, key: str, names: Sequence[str]) -> None:
        """Refuse the document where one of the names that stand at ``key`` is none."""
        fault = name_fault(names)
        if fault is not None:
            self.fail("E_NAME", f"{key}[{fault[0]}]", fault[1])

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
        return check_number(self.get(key), self._at(key), low, high)

    def numbers(self, key: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        """The numbers in the array at ``key``, each in [low, high]."""
        return tuple(check_number(v, f"{self._at(key)}[{i}]", low, high) for i, v in enumerate(self.array(key)))

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
