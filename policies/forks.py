"""A forked child begins with locks that nobody will release, and ends without what atexit has: both are told."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["close_at_the_end_of_a_child", "renew_in_children"]


def renew_in_children(renew: Callable[[], Any]) -> None:
    """Call the bound method ``renew`` in every child that this process forks, as long as its object lives."""
    if not hasattr(os, "register_at_fork"):  # no fork, no trouble
        return
    method = weakref.WeakMethod(renew)

    def in_child() -> None:
        alive = method()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=in_child)


def close_at_the_end_of_a_child(close: Callable[[], object]) -> None:
    """Have it called at the end of this process where it is a child of multiprocessing, which passes over atexit."""
    if "multiprocessing" in sys.modules:  # as it is in every such child
        from multiprocessing import parent_process
        from multiprocessing.util import Finalize

        if parent_process() is not None:
            Finalize(None, close, exitpriority=0)
