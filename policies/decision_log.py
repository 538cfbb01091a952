"""The decision log: one JSON line a step, written behind the requests' backs."""

from __future__ import annotations

import atexit
import json
import os
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.episode import Told
from metaverify.policies.exposition import counter
from metaverify.policies.forks import close_at_the_end_of_a_child, renew_in_children
from metaverify.policies.routed import Routed

__all__ = ["DecisionLog", "decision_lines"]

BATCH = 256
"""Requests that are written at once, at most."""

KINDS: dict[type[Action], str] = {Call: "call", Verify: "verify", Accept: "accept", Abstain: "abstain"}


CAUSES = ("full", "closed", "no thread", "no line", "file")
"""Why a request is not in the file: no room in the queue; `close` was called; no thread could be started to write; it
cannot be told in JSON, or not so that `read_decisions` would take it (half a letter of UTF-16, a cost that is neither 0
nor from 1e-100 to 1e100); the file could not be written."""

PRICES = 1e-100, 1e100  # what something may cost in a log that is not free


class DecisionLog:
    """Appends what was decided to a file, and never makes a request wait.

    `put` leaves a request in a queue; a thread of its own writes it.  Where the queue is full, or the file cannot be
    written, requests are dropped and counted in ``dropped``, by cause in ``drops``.  The file is opened anew for each
    batch, so it may be moved away at any time, and several processes may append to one file.

    What waits is written at the end of the process, of a child of `multiprocessing` too.  A process that is killed, or
    ends by `os._exit` or by a signal that nobody handles, loses it uncounted: have SIGTERM call `close`, or `sys.exit`.

    Args:
        path: the file.
        size: requests that may wait, and one more for each thread that comes at once.
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
        close = weakref.WeakMethod(self.close)
        self._at_exit = lambda: alive() if (alive := close()) else None
        atexit.register(self._at_exit)

    def _renew(self) -> None:
        # A signal's handler may come amid a request, and neither of these waits for what its own thread is at.
        self._queue: queue.SimpleQueue[tuple[float, Routed] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._drops: Counter[str] = Counter()
        self._whole: bool | None = None  # whether the file ends with a whole line; None is not known

    @property
    def dropped(self) -> int:
        """Requests that are not in the file and will not be."""
        return sum(self.drops.values())

    @property
    def drops(self) -> Mapping[str, int]:
        """The same by cause: "full", "closed", "no thread", "no line" or "file"."""
        with self._lock:
            return {cause: self._drops[cause] for cause in CAUSES}

    def prometheus(self) -> str:
        """``drops`` in Prometheus' text format."""
        return counter("decisions_dropped_total", "Requests that are not in the log.", self.drops, "cause")

    def put(self, routed: Routed) -> bool:
        """Have a request written; False, and counted, where that cannot be."""
        if self._closed:
            return self._drop("closed")
        if self._thread is None and not self._start():
            return self._drop("no thread")
        if self._queue.qsize() >= self._size:
            return self._drop("full")
        self._queue.put((self._clock(), routed))
        return True

    def _drop(self, cause: str, requests: int = 1) -> bool:
        with self._lock:
            self._drops[cause] += requests
        return False

    def close(self, timeout: float | None = 5.0) -> None:
        """Write what waits, for so many seconds at most; what is put after that is dropped.

        A signal's handler may call it, whatever the process was at.
        """
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> bool:
        """Whether there is a writer now."""
        with self._lock:
            if self._thread is None:
                writer = threading.Thread(target=self._write, name="metaverify-decisions", daemon=True)
                try:
                    writer.start()
                except RuntimeError:
                    return False
                self._thread = writer
                close_at_the_end_of_a_child(self._at_exit)
            return True

    def _write(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            ended = None in batch
            found = [self._encoded(*item) for item in batch if item is not None]
            whole = [data for data in found if data]
            if len(whole) < len(found):
                self._drop("no line", len(found) - len(whole))
            if (lost := len(whole) - self._append(whole)) > 0:
                self._drop("file", lost)

    def _encoded(self, when: float, routed: Routed) -> bytes:
        """A request's lines, nothing where one of them cannot be told: half a request would be another one."""
        try:
            return "".join(_encoded(line) for line in decision_lines(routed, when)).encode()
        except Exception:
            return b""

    def _append(self, batch: list[bytes]) -> int:
        """How many of these requests are in the file now: the first ones, where the disk had no room for all."""
        if not batch:
            return 0
        try:
            with self.path.open("ab", buffering=0) as file:
                torn = self._whole is not True and not (_ends_whole(self.path) or _ends_whole(self.path, 0.05))
                data = b"\n" * torn + b"".join(batch)
                written = file.write(data)
                self._whole = written == len(data)
        except Exception:
            self._whole = None
            return 0
        ends = accumulate(map(len, batch), initial=int(torn) - 1)  # of each request but for its line break
        return sum(end <= written for end in islice(ends, 1, None))


def _encoded(line: dict[str, Any]) -> str:
    """A line of the log.

    Raises:
        ValueError: it would not be read back.
    """
    if line["cost"] != 0.0 and not PRICES[0] <= line["cost"] <= PRICES[1]:
        raise ValueError(f"the cost {line['cost']}")
    text = json.dumps(line, allow_nan=False)
    if "\\ud" in text:  # as half a letter is written, and each half of a whole one
        json.dumps(line, ensure_ascii=False).encode()
    return f"{text}\n"


def decision_lines(routed: Routed, when: float) -> Iterator[dict[str, Any]]:
    """A request as lines of the log, one a step."""
    for at, step in enumerate(routed.steps):
        action = step.action
        yield {
            "time": round(when, 3),
            "key": _told_key(routed.key),
            "policy": routed.snapshot.id,
            "serial": routed.serial,
            "vertex": routed.vertex,
            "context": routed.context,
            "step": at,
            "action": KINDS[type(action)],
            "tier": None if isinstance(action, Abstain) else action.tier,
            "reading": action.reading if isinstance(action, Verify) else None,
            "confidence": {str(name): _plain(value) for name, value in step.readings.items()},
            "cost": float(step.cost),
            "spent": float(step.spent),
            "propensity": step.propensity,
            "reason": step.reason,
            "without": list(step.without),
            **({"unseen": dict(routed.unseen)} if routed.unseen and step is routed.steps[-1] else {}),
        }


def _told_key(key: Any) -> str | int | None:
    """A request's id as the policy draws by it: whatever is neither text, a whole number nor bytes by its text."""
    if isinstance(key, bytes):
        return key.hex()
    return key if key is None or type(key) in (str, int) else str(key)


def _plain(told: Told) -> Any:
    if told is None:
        return None
    if isinstance(told, tuple | list):
        return [int(part) for part in told]
    value = float(told)
    return value if 0.0 <= value <= 1.0 else None  # as it was taken


def _ends_whole(path: Path, wait: float = 0.0) -> bool:
    """Whether a file ends with a whole line, or after a while does: another process may be writing one."""
    time.sleep(wait)
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
