"""Running tasks under the caller's joblib back end, whichever that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from joblib import Parallel

__all__ = ["in_turn"]


def in_turn(tasks: Iterable[Any]) -> Iterator[Any]:
    """What tasks give, in the order in which they are told, each as soon as it is there.

    They run under the caller's joblib ``parallel_config``.  Ray's back end gives everything when all is done.

    Args:
        tasks: what joblib's ``delayed`` makes.

    Example:
        >>> from joblib import delayed
        >>> list(in_turn(delayed(pow)(2, at) for at in range(4)))
        [1, 2, 4, 8]
    """
    try:
        parallel = Parallel(return_as="generator")
    except ValueError:  # the back end has no generators
        parallel = Parallel()
    yield from parallel(tasks)
