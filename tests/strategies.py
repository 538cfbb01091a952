"""What tests draw at random: ladders, joint tables, logs, confidences; and the same from a seed, without Hypothesis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from metaverify.fitting.ladders import Ladder, Rung, leaf_shape, vote_rung
from metaverify.fitting.table import JointTable
from metaverify.simulators.log import LoggedReading, LoggedSignal, LoggedTier, ReplayLog

NO_CUTS: tuple[float, ...] = ()
ONE_CUT = (0.5,)
TWO_CUTS = (0.3, 0.7)


def repeatable(examples: int) -> settings:
    """The same examples on every run, however slow the machine."""
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None, phases=phases)


# Ladders and tables -------------------------------------------------------------------------------------------------

plain = st.just((Rung(None),))
cuts = st.sampled_from([NO_CUTS, ONE_CUT, TWO_CUTS])
bundled = st.builds(lambda c: (Rung("free", c),), cuts)
billed = st.builds(lambda c: (Rung(None), Rung("paid", c)), cuts)
both = st.builds(lambda c, d: (Rung("free", c), Rung("paid", d)), cuts, cuts)
climbs = st.one_of(plain, bundled, billed, both)
some_votes = st.integers(1, 3).map(lambda votes: vote_rung("votes", votes))
polled = st.one_of(
    st.builds(lambda v: (Rung(None), v), some_votes), st.builds(lambda v: (Rung("free", ONE_CUT), v), some_votes)
)


@st.composite
def ladders(draw: st.DrawFn, most_leaves: int = 81, most_rungs: int = 5, *, votes: bool = False) -> tuple[Ladder, ...]:
    """One to three tiers, and perhaps a judge of some of their answers and a signal that needs none.

    With ``votes`` some tiers, or the judge, are asked for votes one by one.
    """
    kinds = st.one_of(climbs, polled) if votes else climbs
    found = [Ladder(name, draw(kinds)) for name in "abc"[: draw(st.integers(1, 3))]]
    names = [ladder.source for ladder in found]
    if draw(st.booleans()):
        needs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
        verdict = draw(
            st.one_of(st.builds(Rung, st.just("verdict"), cuts), some_votes) if votes else cuts.map(_verdict)
        )
        judge = Ladder("judge", (verdict,), answer=False, needs=tuple(needs))
        found.insert(draw(st.integers(0, len(found))), judge)
    if draw(st.booleans()):
        signal = Ladder("signal", (Rung("length", draw(cuts)),), answer=False)
        found.insert(draw(st.integers(0, len(found))), signal)
    while math.prod(leaf_shape(found)) > most_leaves or sum(len(ladder.rungs) for ladder in found) > most_rungs:
        found = _smaller(found)
    return tuple(found)


def _verdict(cuts: tuple[float, ...]) -> Rung:
    return Rung("verdict", cuts)


def _smaller(found: Sequence[Ladder]) -> list[Ladder]:
    """The same without the top rung of the last ladder that has several, or without the last ladder nobody needs."""
    for at in range(len(found) - 1, -1, -1):
        if len(found[at].rungs) > 1:
            return [*found[:at], Ladder(found[at].source, found[at].rungs[:-1]), *found[at + 1 :]]
    needed = {need for ladder in found for need in ladder.needs}
    spare = max(at for at, ladder in enumerate(found) if ladder.source not in needed)
    return [*found[:spare], *found[spare + 1 :]]


@st.composite
def tables(
    draw: st.DrawFn, most_leaves: int = 81, most_rungs: int = 5, *, votes: bool = False, samples: bool = False
) -> JointTable:
    """Tables of every kind: constant and varying prices, empty cells, tied qualities, contexts; perhaps votes, and
    readings that change the answer."""
    return random_table(
        draw(ladders(most_leaves, most_rungs, votes=votes)),
        draw(st.integers(0, 2**31)),
        contexts=draw(st.integers(0, 2)),
        varying=draw(st.booleans()),
        empty=draw(st.sampled_from([0.0, 0.3])),
        grid=draw(st.sampled_from([None, 2])),
        samples=draw(st.sampled_from([0.5, 1.0])) if samples else 0.0,
    )


def random_table(
    of: Sequence[Ladder],
    seed: int,
    *,
    contexts: int = 0,
    varying: bool = False,
    empty: float = 0.0,
    grid: int | None = None,
    samples: float = 0.0,
) -> JointTable:
    """A table drawn at random: a share ``empty`` of cells has no mass, qualities lie on a grid of 1 / ``grid``, a share
    ``samples`` of later readings changes the answer."""
    rng = np.random.default_rng(seed)
    shape = (1 + contexts, *leaf_shape(of))
    mass = rng.exponential(size=shape) * (rng.random(shape) >= empty) + 1e-3 * (empty == 0.0)
    mass.reshape(shape[0], -1)[:, 0] += 0.1
    mass /= mass.sum(axis=tuple(range(1, mass.ndim)), keepdims=True)

    def quality() -> np.ndarray:
        drawn = rng.random(shape)
        return mass * (drawn if grid is None else np.round(drawn * grid) / grid)

    def price(scale: float) -> float | np.ndarray:
        return mass * scale * rng.gamma(2.0, 0.5, shape) if varying and rng.random() < 0.7 else scale

    share = rng.dirichlet(np.ones(shape[0]))
    if contexts and seed % 2:  # every query's context is known
        share[0], share[1] = 0.0, share[0] + share[1]
    return JointTable(
        tuple(of),
        mass,
        tuple(quality() if ladder.answer else None for ladder in of),
        tuple(
            tuple(price(float(rng.choice([0.0, 0.1, 0.3, 1.0, 2.0]) * rng.uniform(0.5, 1.5))) for _ in ladder.rungs)
            for ladder in of
        ),
        tuple(f"context {row}" for row in range(1, shape[0])),
        (*share[:-1], 1.0 - float(share[:-1].sum())),
        {
            (source, rung): quality()
            for source, ladder in enumerate(of)
            for rung in range(1, len(ladder.rungs))
            if ladder.answer and not ladder.rungs[rung].votes and rng.random() < samples
        },
    )


prices = st.one_of(st.just(0.0), st.floats(1e-3, 10.0))
worths_of_abstaining = st.sampled_from([None, 0.0, 0.4])


# Logs ---------------------------------------------------------------------------------------------------------------


def random_log(
    rows: int,
    seed: int,
    *,
    readings: Sequence[str] = ("free", "paid", ""),
    contexts: int = 0,
    missing: float = 0.15,
    weighted: bool = False,
    varying: bool = False,
    scored: bool = False,
    groups: bool = False,
    signals: bool = False,
) -> ReplayLog:
    """A log of queries with a hidden difficulty that every tier feels.

    Args:
        readings: a tier, the cheapest first: which readings it has, "free", "paid", both ("free paid") or none;
            "sample" and "resample" are paid and change the answer, "gift" is free and does.
        contexts: how many there are, dealt in turn.
        missing: share of the readings.
        weighted: whether rows stand for several queries, and for fractions of one.
        varying: whether prices vary from query to query.
        scored: whether quality is a score rather than right or wrong.
        groups: whether three rows in turn are one group.
        signals: whether there are a judge of the first tier, billed, and a free signal that needs no answer.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=rows)

    def tier(k: int, kinds: str) -> LoggedTier:
        chance = 1 / (1 + np.exp(1.5 * difficulty - k))
        correct = np.round(chance, 1) if scored else (rng.random(rows) < chance).astype(float)
        price = 4.0**k * (np.round(rng.gamma(4.0, 0.25, rows) + 0.1, 3) if varying else np.ones(rows))
        return LoggedTier(f"tier{k}", correct, price, tuple(reading(kind, correct, k) for kind in kinds.split()))

    def reading(kind: str, correct: np.ndarray, k: int) -> LoggedReading:
        score = 1 / (1 + np.exp(-rng.normal(1.6 * correct - 0.8 - 0.5 * difficulty, 1.0)))
        confidence = np.where(rng.random(rows) < missing, np.nan, np.round(score, 1))  # many ties, 0.0 and 1.0 too
        paid = 0.25 * 4.0**k * (np.round(rng.gamma(4.0, 0.25, rows) + 0.1, 3) if varying else np.ones(rows))
        answer = None
        if kind in ("sample", "resample", "gift"):
            better = np.maximum(correct, np.round(rng.random(rows), 1) if scored else rng.random(rows) < 0.4)
            answer = np.where(rng.random(rows) < 0.1, 0.0, better)
            answer[np.isnan(confidence) & (rng.random(rows) < 0.6)] = np.nan
        return LoggedReading(kind, confidence, np.zeros(rows) if kind in ("free", "gift") else paid, correct=answer)

    ids = np.array([f"q{row:05d}" for row in range(rows)], dtype=object)
    found = [tier(k, kinds) for k, kinds in enumerate(readings)]
    read: tuple[LoggedSignal, ...] = ()
    if signals:
        judge = LoggedSignal("judge", (reading("paid", found[0].correct, 0),), (found[0].name,))
        read = (judge, LoggedSignal("early", (reading("free", found[-1].correct, 0),)))
    return ReplayLog(
        ids,
        tuple(sorted(found, key=lambda t: float(t.cost.mean()))),
        rng.integers(1, 8, rows) / 4 if weighted else np.ones(rows),
        np.array([f"g{row // 3}" for row in range(rows)], dtype=object) if groups else ids,
        np.array([f"c{row % contexts}" for row in range(rows)], dtype=object) if contexts else None,
        signals=read,
    )


@st.composite
def logs(draw: st.DrawFn, rows: int = 90, *, samples: bool = False) -> ReplayLog:
    """Logs of two or three tiers, of every kind; perhaps with readings that change the answer."""
    changing = ["free sample", "sample", "gift", "paid gift"] if samples else []
    kinds = st.sampled_from(["free", "paid", "free paid", "", *changing])
    return random_log(
        rows,
        draw(st.integers(0, 2**31)),
        readings=draw(st.lists(kinds, min_size=2, max_size=3)),
        contexts=draw(st.sampled_from([0, 2, 3])),
        missing=draw(st.sampled_from([0.0, 0.15, 0.5])),
        weighted=draw(st.booleans()),
        varying=draw(st.booleans()),
        scored=draw(st.booleans()),
        groups=draw(st.booleans()),
        signals=draw(st.sampled_from([False, False, True])),
    )


# Confidences --------------------------------------------------------------------------------------------------------

fractions = st.floats(0.0, 1.0)
decimals = st.integers(0, 1000).map(lambda k: k / 1000)
short_decimals = st.integers(0, 20).map(lambda k: k / 20)
confidences = st.one_of(fractions, decimals, short_decimals)
