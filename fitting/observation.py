"""The POMDP face of a joint table: hidden states, a prior over them, and what each of them shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder, Place, leaf_shape
from metaverify.fitting.table import JointTable, at_once

__all__ = ["ObservationModel", "observation_model"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ObservationModel:
    """A finite hidden state Z that never changes; given it, the outcomes of all rungs are independent.

    ``emission`` and ``price`` follow the rungs of the ladders in order, ``quality`` the sources.
    """

    ladders: tuple[Ladder, ...]
    prior: Floats  # [Z]
    emission: tuple[Floats, ...]  # a rung: P(outcome | z) [Z, outcomes]
    quality: tuple[Floats | None, ...]  # a source: E[quality of its first answer | z] [Z]; None: no answer
    price: tuple[tuple[float | Floats, ...], ...]  # a source, a rung: a constant, or E[price | z] [Z]
    later: Mapping[Place, Floats] = field(default_factory=dict)  # a rung that is a sample: E[quality | z] [Z]

    def __post_init__(self) -> None:
        sizes = [size for ladder in self.ladders for size in ladder.sizes]
        for emission, size in zip(self.emission, sizes, strict=True):
            if emission.shape != (len(self.prior), size):
                raise ValueError(f"an emission has shape {(len(self.prior), size)}, not {emission.shape}")

    def table(self) -> JointTable:
        """The joint table of the model, summed over its hidden states."""
        split = len(self.emission) // 2
        low, high = _outer(self.emission[:split], self.prior), _outer(self.emission[split:], self.prior)
        shape = (1, *leaf_shape(self.ladders))

        def expected(value: Floats) -> Floats:
            return np.asarray(((low * value[:, None]).T @ high).reshape(shape))

        return JointTable(
            self.ladders,
            expected(self.prior),
            tuple(None if q is None else expected(self.prior * q) for q in self.quality),
            tuple(
                tuple(p if isinstance(p, float) else expected(self.prior * p) for p in rungs) for rungs in self.price
            ),
            later={place: expected(self.prior * q) for place, q in self.later.items()},
        )


def observation_model(table: JointTable, row: int = 0) -> ObservationModel:
    """A joint table's row as an observation model: a hidden state for every leaf that has mass, which shows its own
    outcomes for certain.  Votes are had all at once."""
    table = at_once(table)
    mass = table.mass[row].reshape(-1)
    states = np.flatnonzero(mass > 0)
    prior = mass[states] / mass[states].sum()
    codes = np.unravel_index(states, leaf_shape(table.ladders)) if table.ladders else ()
    sizes = [size for ladder in table.ladders for size in ladder.sizes]

    def given(array: Floats) -> Floats:
        return np.asarray(array[row].reshape(-1)[states] / mass[states])

    return ObservationModel(
        table.ladders,
        prior,
        tuple(np.eye(size)[code] for code, size in zip(codes, sizes, strict=True)),
        tuple(None if q is None else given(q) for q in table.quality),
        tuple(tuple(p if isinstance(p, float) else given(p) for p in rungs) for rungs in table.price),
        {place: given(q) for place, q in table.later.items()},
    )


def _outer(parts: tuple[Floats, ...], prior: Floats) -> Floats:
    """Products of every combination of outcomes, [Z, product of sizes], the last part fastest."""
    product = np.ones((len(prior), 1))
    for part in parts:
        product = (product[:, :, None] * part[:, None, :]).reshape(
            len(prior), math.prod((product.shape[1], part.shape[1]))
        )
    return product
