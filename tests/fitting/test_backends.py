"""The same seed gives the same bytes under every back end of joblib that the caller may have set."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from joblib import delayed, parallel_config

from metaverify.fitting.backends import in_turn
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.fit import fit
from metaverify.fitting.tuned import TunedChains
from metaverify.policies.file import dump_policy
from metaverify.simulators.digits import load_digits_log
from metaverify.simulators.worlds import shared_difficulty
from tests.benchmarks.regret import CANDIDATES, Cell, sweep

ROOT = Path(__file__).resolve().parents[2]
LOG = shared_difficulty(3, 24).draw(240, 1, per_group=2)


def folds() -> str:
    """A cross-fitted policy, and its figures, as JSON."""
    fitted = fit(LOG, budget=4.0, folds=3)
    return dump_policy(fitted.policy) + json.dumps(fitted.to_json())


def trials() -> list[object]:
    """Optuna's, in order."""
    study = TunedChains(budget=4.0, trials=12, batch=4, exact=0).study(LOG)
    return [(trial.number, trial.params, trial.value, trial.constraints) for trial in study.trials]


def bootstrap() -> str:
    """A comparison, whose intervals come from the bootstrap."""
    found = compare(LOG, {"thresholds": Thresholds()}, budgets=[3.0, 6.0], folds=2, resamples=40)
    return json.dumps(found.to_json(seconds=False))


def quality() -> list[tuple[Cell, float]]:
    """A sweep of worlds, sizes and models for what they lose."""
    cells = [Cell("independent-2", 60, draw, name) for draw in (0, 1) for name in ("Counts", "Patterns")]
    return list(sweep(cells, CANDIDATES).items())


WORK: Mapping[str, Callable[[], object]] = {
    "folds": folds,
    "trials": trials,
    "bootstrap": bootstrap,
    "quality": quality,
}


@contextmanager
def dask() -> Iterator[None]:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dask[distributed]'")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster), parallel_config("dask"):
        yield


@contextmanager
def ray() -> Iterator[None]:
    engine = pytest.importorskip("ray", reason="Ray is not installed: pip install 'metaverify[ray]'")
    from ray.util.joblib import register_ray

    register_ray()
    engine.init(num_cpus=2, include_dashboard=False, logging_level="error", object_store_memory=100_000_000)
    try:
        with parallel_config("ray", n_jobs=2):
            yield
    finally:
        engine.shutdown()


BACKENDS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "loky": lambda: parallel_config("loky", n_jobs=2),
    "threading": lambda: parallel_config("threading", n_jobs=2),
    "dask": dask,
    "ray": ray,
}


@pytest.fixture(scope="module")
def alone() -> dict[str, object]:
    """Everything in turn, in this process."""
    return {name: work() for name, work in WORK.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_back_end_gives_what_one_core_gives(backend: str, alone: Mapping[str, object]) -> None:
    with warnings.catch_warnings():  # of what schedulers say to one another
        warnings.simplefilter("ignore")
        with BACKENDS[backend]():
            found = {name: work() for name, work in WORK.items()}
    assert found == alone


def test_a_back_end_without_generators_gives_results_in_order() -> None:
    with parallel_config("multiprocessing", n_jobs=2):  # it has none
        assert list(in_turn(delayed(divmod)(at, 3) for at in range(7))) == [divmod(at, 3) for at in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_the_example_compares_in_other_processes_as_in_this_one(backend: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{backend} is not installed")
    command = [sys.executable, str(ROOT / "examples" / "parallel.py"), backend]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    here = compare(load_digits_log(), ["default", "thresholds"], budgets=[2.0, 4.0, 8.0])
    gains = [f"{method.name}: gain {100 * method.gain.mean:.2f} points" for method in here.methods]
    assert done.stdout.splitlines() == gains
