"""A forked child begins with locks that nobody will release: what holds one is told to begin anew."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["renew_in_children"]


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
