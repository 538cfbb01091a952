"""Learning by planners of pomdp-py; and all that works where pomdp-py is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaverify.fitting.cuts import tune_cuts
from metaverify.fitting.lattice import LatticeSizeError
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.pomdp import cascade_pomdp
from metaverify.fitting.pomdp_file import write_pomdp
from metaverify.fitting.pomdp_learner import PomdpLearner
from metaverify.policies.file import dump_policy, load_policy, save_policy
from metaverify.policies.graph import Read
from metaverify.simulators.replay import route
from tests.fitting.test_observation import LADDERS, random_mixture
from tests.strategies import random_log

SEARCH = PomdpLearner(Counts(), simulations=50, bins=3, kappa=0.0, slack=0.0, prices=4)


def needs_pomdp_py() -> None:
    pytest.importorskip("pomdp_py", reason="pomdp-py has wheels for Linux on x86_64 and Python < 3.13 only")


def test_a_count_tables_policy_earns_on_its_log_what_its_vertices_say(tmp_path: Path) -> None:
    needs_pomdp_py()
    log = random_log(200, 0, contexts=2, varying=True, weighted=True)
    policy = SEARCH.policy(log)
    assert len(policy.vertices) >= 3
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert vertex.cost == pytest.approx(log.mean(routes.cost), rel=1e-11)
        assert vertex.quality == pytest.approx(log.mean(routes.quality), abs=1e-11)
    save_policy(policy, tmp_path / "policy.json")
    assert dump_policy(load_policy(tmp_path / "policy.json")) == dump_policy(policy)
    assert dump_policy(SEARCH.policy(log)) == dump_policy(policy)


def test_its_frontier_is_not_far_below_the_exact_one() -> None:
    needs_pomdp_py()
    log = random_log(400, 1, readings=("free", "free", ""), missing=0.0)
    exact = TableLearner(bins=4).policy(log)
    found = PomdpLearner(bins=4, simulations=300, prices=6).policy(log, near=5.0)
    assert found.vertices[0].cost == pytest.approx(exact.vertices[0].cost)
    for vertex in found.vertices:
        assert vertex.quality == pytest.approx(exact.at(budget=vertex.cost).expected_quality, rel=0.02)
    reads = {at for at, node in enumerate(found.nodes) if isinstance(node, Read)}
    assert set().union(*(vertex.beliefs for vertex in found.vertices)) == reads


def test_value_iteration_finds_vertices_of_the_exact_frontier() -> None:
    needs_pomdp_py()
    log = random_log(300, 2, readings=("free", ""), missing=0.0)
    exact = TableLearner(bins=2, slack=0.0, gap=1e-9).policy(log)
    found = PomdpLearner(solver="value-iteration", bins=2, slack=0.0, prices=2).policy(log)
    assert len(found.vertices) >= 2
    places = [(v.cost, v.quality) for v in exact.vertices]
    for vertex in found.vertices:
        assert any((vertex.cost, vertex.quality) == pytest.approx(place, abs=1e-9) for place in places)


def test_value_iteration_refuses_what_is_no_toy() -> None:
    needs_pomdp_py()
    with pytest.raises(LatticeSizeError, match=r"policy trees over .*value iteration is for toys: .*--bins"):
        PomdpLearner(solver="value-iteration").policy(random_log(100, 0))


def test_value_iteration_counts_the_steps_of_a_whole_fit() -> None:
    needs_pomdp_py()
    log = random_log(300, 2, readings=("free", "free"), missing=0.0)
    with pytest.raises(LatticeSizeError, match=r"9\.5e\+06 steps where 3\.3e\+06 are allowed; .*--solver lattice"):
        PomdpLearner(solver="value-iteration", bins=2).policy(log)


def test_a_method_describes_itself() -> None:
    described = PomdpLearner(bins=5, abstain=0.2, seed=3).describe()
    assert described["method"] == "pomdp-py pouct"
    assert described["options"]["solver"] == "pouct"
    assert (described["options"]["bins"], described["options"]["abstain"], described["options"]["seed"]) == (5, 0.2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "sarsop"}, "solver is 'sarsop'; give one of 'pouct', 'value-iteration'"),
        ({"simulations": 0}, "simulations is 0"),
        ({"prices": 0}, "prices is 0"),
        ({"bins": 0}, "bins is 0"),
        ({"abstain": 1.5}, "abstain is 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PomdpLearner(**options)


@pytest.fixture
def without_pomdp_py(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine for which pomdp-py has no wheel."""
    monkeypatch.setitem(sys.modules, "pomdp_py", None)
    kept = sys.modules.pop("metaverify.fitting.pomdp_py_bridge", None)
    yield
    sys.modules.pop("metaverify.fitting.pomdp_py_bridge", None)
    if kept is not None:
        sys.modules["metaverify.fitting.pomdp_py_bridge"] = kept


@pytest.mark.usefixtures("without_pomdp_py")
def test_without_pomdp_py_its_planners_say_that_it_is_missing_and_all_else_works(tmp_path: Path) -> None:
    log = random_log(100, 0)
    with pytest.raises(ImportError, match=r"pomdp-py is not installed; its wheels are for Linux on x86_64"):
        SEARCH.policy(log)
    with pytest.raises(ImportError, match="pomdp-py is not installed"):
        import metaverify.fitting.pomdp_py_bridge  # noqa: F401
    model = cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.1)
    assert tune_cuts(model)(model.root) in model.legal((0, 0, 0))
    write_pomdp(model, tmp_path / "cascade.pomdp")
    assert TableLearner(bins=3).policy(log).vertices
