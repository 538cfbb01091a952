"""Progress: how far a pass over rows has come, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

__all__ = ["Passed", "Tell", "silent"]

Tell = Callable[[str, float | None], None]
"""What is being done, and the share of the whole that is done; None where that has not changed."""

OFTEN = 0.1  # seconds between two words


def silent(what: str, share: float | None) -> None:
    """Tells nobody."""


class Passed:
    """Rows that an engine has passed, in whatever threads, told a few times a second.

    Args:
        tell: is told.
        what: is being done.
        before: the share of the whole that was done when these rows began.
        share: of the whole, that these rows are.
        rows: how many there are.
    """

    def __init__(self, tell: Tell, what: str, before: float, share: float, rows: int) -> None:
        self._tell, self._what, self._before, self._share, self._rows = tell, what, before, share, max(rows, 1)
        self._lock, self._seen, self._start = Lock(), 0, time.monotonic()
        self._next = self._start + OFTEN

    def __call__(self, count: int) -> None:
        """So many more have been passed."""
        with self._lock:
            self._seen += count
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + OFTEN
            rate = self._seen / (now - self._start)
        told = f"{self._what}, {rate / 1e6:.1f} M rows/s"
        self._tell(told, self._before + self._share * min(self._seen / self._rows, 1.0))
