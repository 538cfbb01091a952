"""Calls in threads of their own, for which nobody waits longer than they want to."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from metaverify.policies.forks import renew_in_children

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Threads"]


class Threads:
    """Runs jobs in threads that keep no process alive, in the context of who asked for them.

    Args:
        most: threads at once, with those in which a job hangs that was given up long ago; other jobs wait for one.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"threads is {most}; at least one call must be able to run")
        self._most = most
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._alive = 0
        self._waiting: dict[Future[Any], tuple[contextvars.Context, Callable[[], Any]]] = {}

    def begin(self, job: Callable[[], Any]) -> Future[Any]:
        """What will come of a job, which begins as soon as a thread is free."""
        from concurrent.futures import Future  # only where it is used, and slow to import

        future: Future[Any] = Future()
        with self._lock:
            self._waiting[future] = contextvars.copy_context(), job
            if self._alive < self._most:
                with suppress(RuntimeError):  # where the system has none left, it waits for the next that begins
                    threading.Thread(target=self._work, name="metaverify-call", daemon=True).start()
                    self._alive += 1
        return future

    def give_up(self, future: Future[Any]) -> bool:
        """Wait no longer for a job; whether it never began, and never will."""
        with self._lock:
            return self._waiting.pop(future, None) is not None

    def _work(self) -> None:
        while True:
            with self._lock:
                future = next(filter(_runs, self._waiting), None)
                if future is None:
                    self._alive -= 1
                    return
                context, job = self._waiting.pop(future)
            try:
                future.set_result(context.run(job))
            except BaseException as error:
                future.set_exception(error)
            del future, context, job


def _runs(future: Future[Any]) -> bool:
    """Whether a job begins now; one that was cancelled never does, and still waits to be given up."""
    return not future.cancelled() and future.set_running_or_notify_cancel()
