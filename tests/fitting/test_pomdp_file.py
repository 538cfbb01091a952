"""POMDP files, read back by readers of their own: the same tables, to the last bit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, LatticeSizeError
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.observation import observation_model
from metaverify.fitting.pomdp import CascadePOMDP, cascade_pomdp
from metaverify.fitting.pomdp_file import PomdpFormat, dump_pomdp, file_bytes, write_pomdp
from metaverify.simulators.worlds import shared_difficulty
from tests.fitting.test_observation import LADDERS, random_mixture
from tests.strategies import random_table

STRANGE = (
    Ladder("4o-mini: ü\n# T: 0", (Rung("p(true)", (0.5,)),)),
    Ladder("4o mini & <b>", (Rung(None),)),
)
MODELS = {
    "a mixture": cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.25, abstain=0.4),
    "a table with empty cells": cascade_pomdp(
        observation_model(random_table(LADDERS, 3, varying=True, empty=0.3)), 1e-5
    ),
    "strange names": cascade_pomdp(observation_model(random_table(STRANGE, 1)), 0.1),
    "one hidden state": cascade_pomdp(random_mixture(STRANGE, 1, 0), 0.1),
}


@dataclass(frozen=True)
class Tables:
    """What a file says: A actions, S states, O observations."""

    discount: float
    start: np.ndarray  # [S]
    transition: np.ndarray  # [A, S, S]
    observation: np.ndarray  # [A, S, O]
    reward: np.ndarray  # [A, S]


def read_pomdp(text: str) -> Tables:
    """A reader of the .pomdp grammar without matrices: single entries of T and R, rows of O."""
    number = r"-?[0-9]+\.[0-9]+"
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    head = dict(line.split(":", 1) for line in lines[:6])
    assert list(head) == ["discount", "values", "states", "actions", "observations", "start"]
    assert head["values"].strip() == "reward"
    states, observations, actions = int(head["states"]), int(head["observations"]), head["actions"].split()
    assert len(set(actions)) == len(actions)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name) for name in actions)
    place = {name: at for at, name in enumerate(actions)}
    transition = np.zeros((len(actions), states, states))
    observation = np.zeros((len(actions), states, observations))
    reward = np.zeros((len(actions), states))
    body = iter(lines[6:])
    for line in body:
        kind, name, *parts = (part.strip() for part in line.split(":"))
        match kind:
            case "T":
                after, chance = parts[1].split()
                assert re.fullmatch(number, chance)
                transition[place[name], int(parts[0]), int(after)] = float(chance)
            case "O":
                row = next(body).split()
                assert all(re.fullmatch(number, value) for value in row)
                observation[place[name], int(parts[0])] = [float(value) for value in row]
            case "R":
                star, value = parts[2].split()
                assert (parts[1], star) == ("*", "*")
                assert re.fullmatch(number, value)
                reward[place[name], int(parts[0])] = float(value)
            case _:
                raise AssertionError(line)
    return Tables(float(head["discount"]), np.array(head["start"].split(), float), transition, observation, reward)


def read_pomdpx(text: str) -> Tables:
    """A reader of factored tables with "*" and "-" in their instances, multiplied out to flat states."""
    root = ET.fromstring(text.encode())
    values: dict[str, list[str]] = {}
    for variable in root.find("Variable"):
        names = [variable.get(key) for key in ("vname", "vnamePrev", "vnameCurr") if variable.get(key)]
        found = variable.findtext("ValueEnum")
        values |= {name: (found or "value").split() for name in names}

    def function(section: str, variable: str) -> np.ndarray:
        (found,) = (f for f in root.find(section) if f.findtext("Var") == variable)
        parents = [p for p in found.findtext("Parent").split() if p != "null"]
        axes = parents if section == "RewardFunction" else [*parents, variable]
        table = np.full([len(values[axis]) for axis in axes], np.nan)
        for entry in found.iter("Entry"):
            tokens = entry.findtext("Instance").split()
            content = entry.findtext("ProbTable") or entry.findtext("ValueTable")
            at = tuple(
                slice(None) if token in "*-" else values[axis].index(token)
                for token, axis in zip(tokens, axes, strict=True)
            )
            dashes = [len(values[axis]) for token, axis in zip(tokens, axes, strict=True) if token == "-"]
            whole = np.eye(dashes[0]) if content == "identity" else np.array(content.split(), float).reshape(dashes)
            assert np.isnan(table[at]).all(), "said twice"
            table[at] = whole
        if section in ("StateTransitionFunction", "RewardFunction"):
            table = np.nan_to_num(table)  # entries that are not named are 0
        assert not np.isnan(table).any()
        return table

    progress = function("StateTransitionFunction", "progress_1")
    hidden = function("StateTransitionFunction", "hidden_1")
    actions, count, _ = progress.shape
    flat = count * hidden.shape[1]
    transition = np.einsum("apq,azw->apzqw", progress, hidden).reshape(actions, flat, flat)
    observation = np.tile(function("ObsFunction", "outcome"), (1, count, 1))
    start = np.outer(function("InitialStateBelief", "progress_0"), function("InitialStateBelief", "hidden_0"))
    reward = function("RewardFunction", "reward")
    discount = float(root.findtext("Discount"))
    return Tables(discount, start.reshape(-1), transition, observation, reward.reshape(actions, flat))


def dense(model: CascadePOMDP) -> np.ndarray:
    """P(state that follows | action, state), [A, S, S]."""
    return np.eye(model.size[0])[model.transition()]


def optimum(tables: Tables, horizon: int) -> float:
    """The value by recursion over beliefs, discounted as the file says."""

    def best(joint: np.ndarray, steps: int) -> float:
        if steps == 0 or not joint.any():
            return 0.0
        options = []
        for moves, shows, rewards in zip(tables.transition, tables.observation, tables.reward, strict=True):
            after = moves.T @ joint
            after[stuck] = 0.0
            later = sum(best(after * shows[:, o], steps - 1) for o in range(shows.shape[1]))
            options.append(float(joint @ rewards) + tables.discount * later)
        return max(options)

    states = range(len(tables.start))
    stuck = [s for s in states if (tables.transition[:, s, s] == 1.0).all() and not tables.reward[:, s].any()]
    return best(tables.start, horizon)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("discount", [1.0, 0.95])
def test_a_pomdp_file_says_what_the_model_is(name: str, discount: float, tmp_path: Path) -> None:
    model = MODELS[name]
    write_pomdp(model, tmp_path / "cascade.pomdp", discount=discount)
    read = read_pomdp((tmp_path / "cascade.pomdp").read_text("ascii"))
    assert read.discount == discount
    assert (read.start == model.start()).all()
    assert (read.transition == dense(model)).all()
    assert (read.observation == model.observation()).all()
    assert (read.reward == model.reward(discount)).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_pomdpx_file_says_the_same_in_factors(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    write_pomdp(model, tmp_path / "cascade.pomdpx", "pomdpx", discount=0.9)
    read = read_pomdpx((tmp_path / "cascade.pomdpx").read_text("ascii"))
    flat = model.size[0] - 1  # in factors, the end has as many states as there are hidden ones
    assert read.discount == 0.9
    assert (read.start[:flat] == model.start()[:flat]).all()
    assert read.start.sum() == model.prior.sum()
    assert (read.transition[:, :flat, :flat] == dense(model)[:, :flat, :flat]).all()
    assert (read.transition[:, :, flat:].sum(axis=2)[:, :flat] == dense(model)[:, :flat, flat]).all()
    assert (read.transition[:, flat:, flat:] == np.eye(len(model.prior))).all()
    assert (read.observation[:, :flat] == model.observation()[:, :flat]).all()
    assert (read.reward[:, :flat] == model.reward(0.9)[:, :flat]).all()
    assert not read.reward[:, flat:].any()


@pytest.mark.parametrize("format", ["pomdp", "pomdpx"])
def test_the_discounted_optimum_of_a_file_is_the_lattices(format: str) -> None:
    mixture = random_mixture((LADDERS[0], LADDERS[2]), 3, 1)
    plan = Lattice(mixture.table(), abstain=0.3).solve(0.2)
    model = cascade_pomdp(mixture, 0.2, abstain=0.3)
    read = (read_pomdp if format == "pomdp" else read_pomdpx)(dump_pomdp(model, format, discount=0.8))
    assert optimum(read, model.horizon) == pytest.approx(plan.quality - 0.2 * plan.cost, abs=1e-9)


def test_a_refused_file_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cascade.pomdp"
    path.write_text("old")
    model = MODELS["a mixture"]
    with pytest.raises(ValueError, match="'xml'; give one of 'pomdp', 'pomdpx'"):
        write_pomdp(model, path, "xml")  # type: ignore[arg-type]
    for discount in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"discount is {discount}; .* above 0 and at most 1"):
            write_pomdp(model, path, discount=discount)
    with pytest.raises(ValueError, match=r"a \.pomdpx file needs one above 0 and below 1"):
        write_pomdp(model, path, "pomdpx", discount=1.0)
    monkeypatch.setattr("metaverify.fitting.pomdp_file.MOST", 1000)
    with pytest.raises(
        LatticeSizeError, match=r"31 states, 7 actions and 4 observations .* MB .* a \.pomdpx, .*--bins"
    ):
        write_pomdp(model, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", get_args(PomdpFormat))
def test_the_size_of_a_large_file_is_known_before_it_is_written(format: PomdpFormat) -> None:
    log = shared_difficulty(3, 8).draw(500, 0)
    table = TableLearner(bins=4, first=True).study(log).table
    for model in (
        cascade_pomdp(observation_model(table), 0.05),  # what a state shows is certain
        cascade_pomdp(random_mixture(LADDERS, 100, 0), 0.25, abstain=0.4),  # what it shows is drawn
    ):
        assert file_bytes(model, format) == pytest.approx(len(dump_pomdp(model, format)), rel=0.15)
