"""The cascade written for POMDP solvers outside: ``.pomdp`` (pomdp-solve, SARSOP) and ``.pomdpx`` (SARSOP, APPL).

Both formats: https://www.pomdp.org/code/pomdp-file-spec.html,
https://bigbird.comp.nus.edu.sg/pmwiki/farm/appl/index.php?n=Main.PomdpXDocumentation
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, get_args
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.lattice import LatticeSizeError
from metaverify.fitting.pomdp import CascadePOMDP
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.storage import write_atomically

__all__ = ["PomdpFormat", "dump_pomdp", "write_pomdp"]

Floats = NDArray[np.float64]
PomdpFormat = Literal["pomdp", "pomdpx"]

MOST = 200_000_000
"""Bytes of a file."""

LONG, SHORT = 20, 4
"""Bytes of a number with its blank: in full, and where it is 0.0 or 1.0."""


def write_pomdp(
    model: CascadePOMDP, path: str | os.PathLike[str], format: PomdpFormat = "pomdp", *, discount: float = 0.95
) -> None:
    """Write a cascade at a price as the file that POMDP solvers read; in one step, whole or not at all.

    Most solvers must discount, a cascade does not: rewards are divided by discount ** (rungs climbed so far), so that
    the discounted value of the file is the undiscounted value of the model, whatever ``discount`` is.

    Args:
        model: the cascade.
        path: the file.
        format: "pomdp", flat states progress x Z + z and a last one for the end; or "pomdpx", progress and hidden state
            as two variables, the first one fully observed.
        discount: in (0, 1]; below 1 for "pomdpx".

    Raises:
        ValueError: another format, or a discount that it does not have.
        LatticeSizeError: the file would be too large.
    """
    write_atomically(path, dump_pomdp(model, format, discount=discount).encode("ascii"))


def dump_pomdp(model: CascadePOMDP, format: PomdpFormat = "pomdp", *, discount: float = 0.95) -> str:
    """The text of the file; see `write_pomdp`."""
    if format not in get_args(PomdpFormat):
        raise ValueError(f"format is {format!r}; give one of {', '.join(map(repr, get_args(PomdpFormat)))}")
    if not 0.0 < discount <= 1.0 or (format == "pomdpx" and discount == 1.0):
        allowed = "above 0 and below 1" if format == "pomdpx" else "above 0 and at most 1"
        raise ValueError(f"discount is {discount}; a .{format} file needs one {allowed}")
    if (size := file_bytes(model, format)) > MOST:
        states, actions, observations = model.size
        shorter = "write a .pomdpx, " if format == "pomdp" else ""
        raise LatticeSizeError(
            f"{states:,} states, {actions} actions and {observations} observations make a .{format} file of some "
            f"{size / 1e6:,.3g} MB where {MOST / 1e6:g} are allowed; {shorter}name fewer tiers (--tiers) or fewer bins "
            "(--bins)"
        )
    lines = _pomdp(model, discount) if format == "pomdp" else _pomdpx(model, discount)
    return "\n".join(lines) + "\n"


def file_bytes(model: CascadePOMDP, format: PomdpFormat) -> int:
    """About how large the file will be, in bytes, known before any of it is written."""
    states, actions, _ = model.size
    hidden, names = len(model.prior), sum(len(name) for name in _names(model.actions))
    chances = int(np.where((model.emission == 0.0) | (model.emission == 1.0), SHORT, LONG).sum())
    place = len(str(states - 1))
    if format == "pomdp":  # a line of T, of O and of R for each action and state, and the chances beside O
        return states * (3 * names + actions * (36 + 4 * place + LONG)) + chances * states // hidden
    entry = len("<Entry><Instance>  -</Instance><ProbTable></ProbTable></Entry>") + place
    entries = hidden + 2 * len(model.progress)  # an action: of what is shown, of what follows, of what it earns
    return entries * (names + actions * entry) + chances + actions * states * LONG + hidden * (LONG + place)


def _pomdp(model: CascadePOMDP, discount: float) -> Iterator[str]:
    states, _, observations = model.size
    names = _names(model.actions)
    for comment in _comments(model):
        yield f"# {comment}"
    yield f"discount: {_number(discount)}"
    yield "values: reward"
    yield f"states: {states}"
    yield f"actions: {' '.join(names)}"
    yield f"observations: {observations}"
    yield f"start: {_numbers(model.start())}"
    tables = zip(names, model.transition(), model.observation(), model.reward(discount), strict=True)
    for name, after, chances, rewards in tables:
        for state, follower in enumerate(after.tolist()):
            yield f"T: {name} : {state} : {follower} 1.0"
        for state, row in enumerate(chances):
            yield f"O: {name} : {state}\n{_numbers(row)}"
        for state, reward in enumerate(rewards.tolist()):
            yield f"R: {name} : {state} : * : * {_number(reward)}"


def _pomdpx(model: CascadePOMDP, discount: float) -> Iterator[str]:
    names, count = _names(model.actions), len(model.progress)
    _, hidden, observations = model.emission.shape
    progress = [*(f"p{p}" for p in range(count)), "end"]
    rewards = model.reward(discount)[:, :-1].reshape(len(names), count, hidden)
    yield '<?xml version="1.0" encoding="US-ASCII"?>'
    yield '<pomdpx version="1.0" id="cascade">'
    yield "<Description>"
    yield from (escape(comment) for comment in _comments(model))
    yield "</Description>"
    yield f"<Discount>{_number(discount)}</Discount>"
    yield "<Variable>"
    yield '<StateVar vnamePrev="progress_0" vnameCurr="progress_1" fullyObs="true">'
    yield f"<ValueEnum>{' '.join(progress)}</ValueEnum></StateVar>"
    yield '<StateVar vnamePrev="hidden_0" vnameCurr="hidden_1" fullyObs="false">'
    yield f"<ValueEnum>{' '.join(f'z{z}' for z in range(hidden))}</ValueEnum></StateVar>"
    yield f'<ActionVar vname="action"><ValueEnum>{" ".join(names)}</ValueEnum></ActionVar>'
    yield f'<ObsVar vname="outcome"><ValueEnum>{" ".join(f"o{o}" for o in range(observations))}</ValueEnum></ObsVar>'
    yield '<RewardVar vname="reward"/>'
    yield "</Variable>"
    yield "<InitialStateBelief>"
    yield from _function("CondProb", "progress_0", "null", [("-", "1.0" + " 0.0" * count)])
    yield from _function("CondProb", "hidden_0", "null", [("-", _numbers(model.prior))])
    yield "</InitialStateBelief>"
    yield "<StateTransitionFunction>"
    steps = (
        (f"{name} {progress[p]} {progress[after]}", "1.0")
        for name, row in zip(names, model.successor.tolist(), strict=True)
        for p, after in enumerate(row)
    )
    yield from _function("CondProb", "progress_1", "action progress_0", steps)
    yield from _function("CondProb", "hidden_1", "action hidden_0", [("* - -", "identity")])
    yield "</StateTransitionFunction>"
    yield "<ObsFunction>"
    shown = (
        (f"{name} z{z} -", _numbers(row))
        for name, table in zip(names, model.emission, strict=True)
        for z, row in enumerate(table)
    )
    yield from _function("CondProb", "outcome", "action hidden_1", shown)
    yield "</ObsFunction>"
    yield "<RewardFunction>"
    gains = (
        (f"{name} {progress[p]} -", _numbers(row))
        for name, table in zip(names, rewards, strict=True)
        for p, row in enumerate(table)
    )
    yield from _function("Func", "reward", "action progress_0 hidden_0", gains)
    yield "</RewardFunction>"
    yield "</pomdpx>"


def _function(kind: str, variable: str, parents: str, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One conditional table: (instance, values) an entry."""
    values = "ValueTable" if kind == "Func" else "ProbTable"
    yield f'<{kind}><Var>{variable}</Var><Parent>{parents}</Parent><Parameter type="TBL">'
    for instance, table in entries:
        yield f"<Entry><Instance>{instance}</Instance><{values}>{table}</{values}></Entry>"
    yield f"</Parameter></{kind}>"


def _names(actions: Iterable[Action]) -> list[str]:
    """Names that solvers take: letters, digits and underscores, all different."""
    return [f"a{at}_{re.sub('[^A-Za-z0-9]+', '_', _label(action)).strip('_')}" for at, action in enumerate(actions)]


def _label(action: Action) -> str:
    match action:
        case Call(tier):
            return f"call {tier}"
        case Verify(tier, reading):
            return f"verify {tier} {reading}"
        case Accept(tier):
            return f"accept {tier}"
        case Abstain():
            return "abstain"


def _comments(model: CascadePOMDP) -> Iterator[str]:
    """What the numbers of the file mean."""
    sources = ", ".join(ascii(ladder.source) for ladder in model.ladders)
    hidden = len(model.prior)
    yield f"A cascade: quality less {model.price!r} x cost; {hidden} hidden states, which never change"
    yield f"progress: how many rungs of {sources} were climbed; state: progress x {hidden} + hidden state"
    for at, depths in enumerate(model.progress):
        yield f"progress {at}: {depths}"
    yield f"the last state, {model.size[0] - 1}, is the end"
    for name, action in zip(_names(model.actions), model.actions, strict=True):
        yield f"{name}: {action!a}"
    yield "observation: the outcome of the rung that was climbed, 0 after other actions; an action that cannot be done "
    yield f"ends the query at {model.forbidden!r}; rewards are divided by discount ** (rungs climbed so far)"


def _numbers(row: Floats) -> str:
    return " ".join(_number(value) for value in row.tolist())


@lru_cache(maxsize=1 << 16)
def _number(value: float) -> str:
    """The shortest decimal that reads back as the same number: no exponent, a digit on both sides of the point."""
    return np.format_float_positional(value + 0.0, trim="0")
