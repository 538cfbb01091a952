"""The policy in use: reloaded while requests run, and never worse than the last one that was good."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from metaverify.policies.exposition import counter, gauge
from metaverify.policies.file import check_serial, load_policy, policy_id
from metaverify.policies.forks import renew_in_children
from metaverify.policies.policy import Policy

__all__ = ["Health", "PolicyStore", "Snapshot"]

LONGEST_WAIT = 60.0
"""Seconds after which a file that was refused is tried again, at the latest."""

Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A policy, the id of its file, and how many others were in use before it.

    A request takes one snapshot at its start and keeps it.
    """

    policy: Policy
    id: str
    number: int = 0

    @property
    def serial(self) -> int:
        """Which edition of the file it is."""
        return self.policy.serial


@dataclass(frozen=True, slots=True)
class Health:
    """What a store holds, and how its last attempts went.

    ``id`` and ``serial`` are the active policy's and ``age`` the seconds since it was taken up; ``reloads`` counts the
    policies that replaced another, ``refused`` the attempts that failed, ``failures`` those since the last good one,
    and ``error`` is the last of these, None where the last attempt was good.  ``expires`` is when the active policy is
    not to be used any more, None where its file does not say, and ``expired`` whether that time has come.
    """

    id: str
    serial: int
    age: float
    reloads: int
    refused: int
    failures: int
    error: str | None
    expires: float | None
    expired: bool


@dataclass(frozen=True, slots=True)
class _State:
    snapshot: Snapshot
    since: float  # when the snapshot was taken up
    stamp: Stamp  # of the file at the last attempt
    checked: float  # when the stamp was last looked at
    tried: float  # when the file was last read
    refused: int = 0
    failures: int = 0
    error: str | None = None


class PolicyStore:
    """Watches a policy file, and always has a policy that loaded.

    Everything that changes is one immutable value in one attribute, so no reader sees half of a reload.  Who asks first
    after the file changed reads it, and waits for ``load``; meanwhile the others go on with the policy before.  Where
    not even one request may wait, pass ``every=None`` and call `reload` from a thread of your own.

    Args:
        path: the policy file; put the next one there in one step, as `save_policy` does.
        every: seconds between looks at the file (its time, inode and size), taken when the policy is asked for; None
            looks only when `reload` is called.
        load: reads the file, by default `load_policy`; turn the dial here, as in
            ``load=lambda path: load_policy(path, now=time.time()).at(budget=3.0)``, and refuse what has expired.
        clock: seconds that only go up.
        wall_clock: seconds since 1970, which `health` holds against the policy's end.

    A file that is refused, whatever the reason, changes nothing but `health`; it is read again when it changes, and
    otherwise after twice the time each time, up to a minute.  One whose serial is below that of the policy in use is
    refused as well (E_ROLLBACK); what a process may begin with is for ``load`` to say, by `load_policy`'s ``at_least``.

    A policy that expires while it is in use stays in use, for it is the last that was good, and the service goes on;
    `health` and `prometheus` say so from then on.

    Raises:
        PolicyFileError: the first file does not load, and so there is nothing to fall back on.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: float | None = 1.0,
        load: Callable[[Path], Policy] = load_policy,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if every is not None and not 0.0 <= every < float("inf"):
            raise ValueError(f"every is {every}; give seconds of at least 0, or None to look on call only")
        self.path = Path(path).absolute()  # wherever the process goes
        self._every = every
        self._load = load
        self._clock = clock
        self._wall_clock = wall_clock
        stamp, now = _stamp(self.path), clock()
        policy = load(self.path)
        self._state = _State(Snapshot(policy, policy_id(policy)), now, stamp, now, now)
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._loading = threading.RLock()  # a signal's handler may reload amid a look
        self._reading = self._again = False

    @property
    def policy(self) -> Policy:
        """The policy in use."""
        return self.snapshot().policy

    def snapshot(self) -> Snapshot:
        """The policy in use and its id, after a look at the file where one is due."""
        state = self._state
        if self._every is not None:
            now = self._clock()
            due = not 0.0 <= now - state.checked < self._every  # a clock that went back is due too
            if due and self._loading.acquire(blocking=False):
                try:
                    self._look(now)
                finally:
                    self._loading.release()
        return self._state.snapshot

    def reload(self) -> Health:
        """Read the file now, whether it changed or not, and say how that went.

        A signal's handler may call it (SIGHUP, say); where it comes amid a look of the same thread, the file is read
        once more after that.
        """
        with self._loading:
            self._try(_stamp(self.path), self._clock())
        return self.health()

    def health(self) -> Health:
        """What is in use, for how long, and what the last attempts came to."""
        state = self._state
        age = max(self._clock() - state.since, 0.0)
        active = state.snapshot
        expires = active.policy.expires
        return Health(
            active.id,
            active.serial,
            age,
            active.number,
            state.refused,
            state.failures,
            state.error,
            expires,
            expires is not None and self._wall_clock() >= expires,
        )

    def prometheus(self) -> str:
        """The store's health in Prometheus' text format."""
        health = self.health()
        return "".join(
            [
                gauge("policy_serial", "The edition of the policy in use.", health.serial),
                gauge("policy_age_seconds", "For how long it has been in use.", round(health.age, 3)),
                gauge("policy_expired", "Whether it is past its end.", int(health.expired)),
                counter("policy_reloads_total", "Policies that replaced another.", health.reloads),
                counter("policy_refused_total", "Attempts to read the file that failed.", health.refused),
                gauge("policy_failures", "Those since the last good one.", health.failures),
            ]
        )

    def _look(self, now: float) -> None:
        state, stamp = self._state, _stamp(self.path)
        wait = min(max(self._every or 0.0, 0.1) * 2.0 ** min(state.failures, 20), LONGEST_WAIT)
        again = state.failures > 0 and not 0.0 <= now - state.tried < wait
        if stamp != state.stamp or again:
            self._try(stamp, now)
        else:
            self._state = replace(state, checked=now)

    def _try(self, stamp: Stamp, now: float) -> None:
        """Read the file, and once more after that where a signal's handler asks for it meanwhile."""
        if self._reading:
            self._again = True
            return
        self._reading = True
        try:
            self._read(stamp, now)
            while self._again:
                self._again = False
                self._read(_stamp(self.path), self._clock())
        finally:
            self._reading = False

    def _read(self, stamp: Stamp, now: float) -> None:
        """Read the file, which had this stamp before: one that changes meanwhile is looked at again."""
        state = replace(self._state, stamp=stamp, checked=now, tried=now)
        try:
            policy = self._load(self.path)
            check_serial(policy, state.snapshot.serial)
            name = policy_id(policy)
        except Exception as error:  # whatever it is, the last good policy stays
            message = f"{type(error).__name__}: {error}"
            refused, failures = state.refused + 1, state.failures + 1
            self._state = replace(state, refused=refused, failures=failures, error=message)
            return
        state = replace(state, failures=0, error=None)
        if name != state.snapshot.id:
            state = replace(state, snapshot=Snapshot(policy, name, state.snapshot.number + 1), since=now)
        self._state = state


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
