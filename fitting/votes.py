"""Votes that are asked one by one: what is known after j of them, and how that follows from j + 1 and from j - 1.

Votes are exchangeable, so after j of them all that matters is how many were yes: outcomes 0 .. j, and "missing" last,
where the first vote failed.  Expectations over j votes are sums over j + 1: of those who have y yes among j + 1, a
share y / (j + 1) had y - 1 before the last vote, and the others y.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["one_less", "one_more", "worth_of_asking"]

Floats = NDArray[np.float64]


def one_less(after: Floats) -> Floats:
    """From expectations after j + 1 >= 2 votes [outer, j + 3, inner] to those after j, [outer, j + 2, inner].

    Every outcome is the sum of what can follow it; "missing" stays what it is.
    """
    asked = after.shape[1] - 2
    yes = np.arange(asked)[:, None]  # among j votes
    before = np.empty((after.shape[0], asked + 1, after.shape[2]))
    before[:, :asked] = ((asked - yes) * after[:, :asked] + (yes + 1) * after[:, 1 : asked + 1]) / asked
    before[:, asked] = after[:, asked + 1]
    return before


def one_more(reach: Floats) -> Floats:
    """The share of each outcome after j + 1 votes, [m, j + 3], that comes from the shares ``reach`` [m, j + 2] of those
    after j for which another vote is asked; nobody is asked again where it failed."""
    asked = reach.shape[1] - 1
    yes = np.arange(asked + 1)  # among j + 1 votes
    after = np.zeros((len(reach), asked + 2))
    after[:, :asked] = reach[:, :asked] * (asked - yes[:asked])
    after[:, 1 : asked + 1] += reach[:, :asked] * yes[1:]
    return np.asarray(after / asked)


def worth_of_asking(closed: Sequence[Floats], charges: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """What asking for votes is worth, before the first one and after each.

    Args:
        closed: after j = 1 .. k votes, the worth of asking no more, [outer, j + 2, inner].
        charges: the expected price of the next vote, times price, after j = 1 .. k - 1 votes, likewise.

    Returns:
        The worth of all outcomes of the first vote together [outer, inner], its own price not taken off; and after
        j = 1 .. k - 1 votes the worth of asking for another one, [outer, j + 2, inner], of no meaning where missing.
    """
    best, going_on = closed[-1], []
    for stopping, charge in zip(closed[-2::-1], charges[::-1], strict=True):
        after = one_less(best) - charge
        going_on.append(after)
        best = np.concatenate([np.maximum(stopping[:, :-1], after[:, :-1]), stopping[:, -1:]], axis=1)
    return best.sum(axis=1), going_on[::-1]
