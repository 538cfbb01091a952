"""From anything that says what to do next to a plan over the lattice, and so to a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.lattice import ABSTAIN, Depths, Lattice, Plan, Stage, deeper
from metaverify.fitting.pomdp import Information
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify

__all__ = ["Planner", "follow", "plan_of"]

Ints = NDArray[np.int64]

Planner = Callable[[Information], Action]
"""What to do next, given what is known; the same for the same information."""

Decide = Callable[[Depths, Ints], tuple[Ints, Ints]]
"""From a slab and positions in it [m] to the source climbed, -1 to stop, and the answer then returned, [m] each."""


def plan_of(lattice: Lattice, planners: Sequence[Planner], price: float) -> Plan:
    """Ask a planner in every information state that its own decisions reach; cost and quality are the lattice's, exact.

    Args:
        lattice: what is known.
        planners: one a context row, pooled first.
        price: the one at which they were made.

    Raises:
        ValueError: a planner asks for what cannot be done.
    """
    return follow(lattice, partial(_decide, lattice, planners), price)


def follow(lattice: Lattice, decide: Decide, price: float) -> Plan:
    """The plan that decides so in every information state that it reaches; cost and quality are the lattice's, exact.

    Args:
        lattice: what is known; its votes are had all at once.
        decide: what is done; it must be possible.
        price: the one at which it was decided.
    """
    root: Depths = (0,) * len(lattice.table.ladders)
    waiting: dict[Depths, list[Ints]] = {root: [np.arange(len(lattice.share))]}
    stages: list[Stage] = []
    quality = cost = 0.0
    while waiting:
        depths = min(waiting, key=lambda d: (sum(d), d))
        states = np.concatenate(waiting.pop(depths))
        share = lattice.share[lattice.row(depths, states)]
        climb, answer = decide(depths, states)
        for source in np.unique(climb[climb >= 0]).tolist():
            here = climb == source
            children = lattice.children(depths, source, states[here])
            waiting.setdefault(deeper(depths, source), []).append(children.reshape(-1))
            cost += float(share[here] @ lattice.charge(depths, source, states[here]))
        for source in np.unique(answer[climb < 0]).tolist():
            here = (climb < 0) & (answer == source)
            if source == ABSTAIN:
                quality += (lattice.abstain or 0.0) * float(share[here] @ lattice.mass(depths, states[here]))
            else:
                quality += float(share[here] @ lattice.quality(source, depths, states[here]))
        stages.append(Stage(depths, states, climb, answer))
    return Plan(price, quality, cost, tuple(stages))


def _decide(lattice: Lattice, planners: Sequence[Planner], depths: Depths, states: Ints) -> tuple[Ints, Ints]:
    """The source climbed, -1 to stop, and the answer then returned, for ``states`` [m] of a slab."""
    ladders = lattice.table.ladders
    place = {ladder.source: source for source, ladder in enumerate(ladders)}
    sizes = [size for ladder, depth in zip(ladders, depths, strict=True) for size in ladder.sizes[:depth]]
    rows, *outcomes = np.unravel_index(states, (len(planners), *sizes))
    climbable = lattice.climbable(depths)
    climb, answer = np.full(len(states), -1), np.full(len(states), ABSTAIN)
    for at, (row, *shown) in enumerate(zip(rows.tolist(), *(o.tolist() for o in outcomes), strict=True)):
        information = Information(depths, tuple(shown))
        action = planners[row](information)
        match action:
            case Call(tier) | Verify(tier, _) if place.get(tier) in climbable:
                climb[at] = place[tier]
                possible = ladders[place[tier]].action(depths[place[tier]]) == action
            case Accept(tier) if tier in place:
                answer[at] = place[tier]
                possible = ladders[place[tier]].answer and depths[place[tier]] > 0
            case _:
                possible = action == Abstain() and lattice.abstain is not None
        if not possible:
            raise ValueError(f"the planner asks for {action} at {information}, where that cannot be done")
    return climb, answer
