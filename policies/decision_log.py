"""The decision log: one JSON line a step, written behind the requests' backs."""

from __future__ import annotations

import atexit
import json
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.episode import Told
from metaverify.policies.forks import renew_in_children
from metaverify.policies.routed import Routed

__all__ = ["DecisionLog", "decision_lines"]

BATCH = 256
"""Requests that are written at once, at most."""

KINDS: dict[type[Action], str] = {Call: "call", Verify: "verify", Accept: "accept", Abstain: "abstain"}


class DecisionLog:
    """Appends what was decided to a file, and never makes a request wait.

    `put` leaves a request in a queue; a thread of its own writes it.  Where the queue is full, or the file cannot be
    written, requests are dropped and counted in ``dropped``.  The file is opened anew for each batch, so it may be
    moved away at any time, and several processes may append to one file.

    Args:
        path: the file.
        size: requests that may wait.
        clock: seconds since 1970.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, DecisionLog(Path(folder) / "decisions.jsonl") as log:
        ...     log.dropped
        0
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 10_000, clock: Callable[[], float] = time.time):
        if size < 1:
            raise ValueError(f"size is {size}; at least one request must be able to wait")
        self.path = Path(path).absolute()  # wherever the process goes
        self._size = size
        self._clock = clock
        self._renew()
        renew_in_children(self._renew)
        at_exit = weakref.WeakMethod(self.close)
        atexit.register(lambda: close() if (close := at_exit()) else None)

    def _renew(self) -> None:
        self._queue: queue.Queue[tuple[float, Routed] | None] = queue.Queue(self._size)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._refused = 0  # did not fit in, counted under the lock
        self._lost = 0  # could not be written, counted by the writer
        self._whole: bool | None = None  # whether the file ends with a whole line; None is not known

    @property
    def dropped(self) -> int:
        """Requests that are not in the file and will not be."""
        return self._refused + self._lost

    def put(self, routed: Routed) -> bool:
        """Have a request written; False, and counted, where there is no room for it."""
        if self._thread is None:
            self._start()
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait((self._clock(), routed))
        except queue.Full:
            with self._lock:
                self._refused += 1
            return False
        return True

    def close(self, timeout: float | None = 5.0) -> None:
        """Write what waits, for so many seconds at most; what is put after that is dropped."""
        self._closed = True
        if self._thread is None:
            return
        end = None if timeout is None else time.monotonic() + timeout
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(None if end is None else max(end - time.monotonic(), 0.0))

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._write, name="metaverify-decisions", daemon=True)
                self._thread.start()

    def _write(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            ended = None in batch
            found = [item for item in batch if item is not None]
            if found and not self._append(found):
                self._lost += len(found)

    def _append(self, batch: list[tuple[float, Routed]]) -> bool:
        """Whether these requests are in the file now."""
        try:
            lines = [line for when, routed in batch for line in decision_lines(routed, when)]
            data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
            with self.path.open("ab", buffering=0) as file:
                if self._whole is not True:
                    data = (b"" if _ends_whole(self.path) else b"\n") + data
                written = file.write(data)
                self._whole = written == len(data)
        except Exception:
            self._whole = None
            return False
        return self._whole


def decision_lines(routed: Routed, when: float) -> Iterator[dict[str, Any]]:
    """A request as lines of the log, one a step."""
    for at, step in enumerate(routed.steps):
        action = step.action
        yield {
            "time": round(when, 3),
            "key": routed.key.hex() if isinstance(routed.key, bytes) else routed.key,
            "policy": routed.snapshot.id,
            "serial": routed.serial,
            "vertex": routed.vertex,
            "context": routed.context,
            "step": at,
            "action": KINDS[type(action)],
            "tier": None if isinstance(action, Abstain) else action.tier,
            "reading": action.reading if isinstance(action, Verify) else None,
            "confidence": {str(name): _plain(value) for name, value in step.readings.items()},
            "cost": step.cost,
            "spent": step.spent,
            "propensity": step.propensity,
            "reason": step.reason,
            "without": list(step.without),
            **({"unseen": dict(routed.unseen)} if routed.unseen and step is routed.steps[-1] else {}),
        }


def _plain(told: Told) -> Any:
    if told is None:
        return None
    if isinstance(told, tuple | list):
        return [int(part) for part in told]
    value = float(told)
    return value if math.isfinite(value) else None


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
