"""The sources of a cascade, as a policy knows them: name, price, readings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reading", "Tier"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One confidence that can be read in a tier's answer.

    ``price`` is its mean price, 0 where it comes with the answer.  ``cuts`` and ``counts`` are the histogram of the
    log that the policy was fitted on, against which drift is judged: counts of confidence < cuts[0], of each bin
    [cuts[b-1], cuts[b]), of the last bin, and of missing readings (len(cuts) + 2 of them).

    Where ``votes`` is not 0 the reading is a share of at most so many votes, and ``price`` that of all of them.  They
    can be asked for one by one, and are told as (yes, asked).
    """

    name: str
    price: float
    cuts: tuple[float, ...]
    counts: tuple[int, ...]
    votes: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """A model of the cascade: its name, its mean price per call, and its readings in the order they are bought.

    One without an answer is a signal: nothing is called and nothing accepted, and its readings can be bought once the
    answers of the tiers in ``needs`` are in hand.
    """

    name: str
    price: float
    readings: tuple[Reading, ...] = ()
    answer: bool = True
    needs: tuple[str, ...] = ()
