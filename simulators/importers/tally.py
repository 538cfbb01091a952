"""What of the files could not be used, counted and named."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SHOWN", "Fault", "Tally"]

SHOWN = 3
"""The places that are named of each kind of fault."""

_KINDS = 30  # of faults that are told apart
_LONGEST = 80  # letters of a value that is shown
_OTHERS = "is unusable for other reasons"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of what could not be used: why, how often, and the first places, each once with what stands there."""

    why: str
    count: int
    first: tuple[str, ...]


class Tally:
    """Counts what could not be used, and keeps the first places, whatever the order in which they come."""

    def __init__(self, files: Sequence[str]):
        self._files = files
        self._count: dict[str, int] = {}
        self._first: dict[str, list[tuple[int, int, str]]] = {}

    @property
    def total(self) -> int:
        """How often anything could not be used."""
        return sum(self._count.values())

    def add(self, file: int, line: int, why: str, value: object = None) -> None:
        """Count what stands in a line of a file, by their numbers."""
        if why not in self._count and len(self._count) >= _KINDS:
            why = _OTHERS
        self._count[why] = self._count.get(why, 0) + 1
        first = self._first.setdefault(why, [])
        if len(first) < SHOWN or (file, line) < first[-1][:2]:
            place = file, line, _shown(value)
            if place not in first:
                insort(first, place)
                del first[SHOWN:]

    def faults(self) -> tuple[Fault, ...]:
        """Every kind, the most frequent first."""
        kinds = sorted(self._count, key=lambda why: (-self._count[why], why))
        return tuple(Fault(why, self._count[why], tuple(map(self._place, self._first[why]))) for why in kinds)

    def _place(self, place: tuple[int, int, str]) -> str:
        file, line, value = place
        return f"{self._files[file]} line {line}" + (f" ({value})" if value else "")


def _shown(value: object) -> str:
    if value is None:
        return ""
    text = str(value) if isinstance(value, Exception | str) else repr(value)
    text = " ".join(text.split())
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
