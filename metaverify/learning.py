"""How `fit` is to learn: the options that say it, and the learner that they name."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from metaverify.options import number, whole
from metaverify.output import check_out

if TYPE_CHECKING:
    from metaverify.fitting.crossfit import Learner
    from metaverify.fitting.models.base import TableModel
    from metaverify.simulators.progress import Tell

__all__ = ["MODEL_NAMES", "add_learner", "named_model", "read_learner", "say_interrupted"]

MODEL_NAMES = (
    "default",
    "copula",
    "patterns",
    "latent",
    "kernel",
    "counts",
    "platt",
    "isotonic",
    "automix-counts",
    "automix-kde",
)


def add_learner(parser: argparse.ArgumentParser) -> None:
    """The way of learning, and what it is tuned by."""
    parser.add_argument(
        "--method",
        choices=("auto", "chain", "lattice", "thresholds", "optuna"),
        default="auto",
        help="auto: what cross-fitting prefers; chain, lattice: cuts on the model's table, or its exact solution; "
        "thresholds: cuts on the log's rows; optuna: cuts, tiers and their order tuned on the rows",
    )
    parser.add_argument(
        "--trials",
        type=whole("trials", 1),
        help="of optuna, in each study: one a fold and one of all (default: 200; none where all chains are compared)",
    )
    parser.add_argument(
        "--cuts",
        type=whole("cuts", 1, 2),
        help="of optuna: 1, escalate below a tier's cut; 2, between its two (default: 1)",
    )
    parser.add_argument(
        "--storage",
        metavar="FILE",
        help="of optuna: where finished trials are kept, and the same studies go on: SQLite where it ends in .db, "
        "otherwise a journal (default: in memory; all chains are compared instead where they are few)",
    )
    parser.add_argument(
        "--model",
        choices=MODEL_NAMES,
        default="default",
        metavar="MODEL",
        help="of what confidences are worth: %(choices)s (default: copula and patterns averaged)",
    )
    parser.add_argument(
        "--pooling",
        choices=("average", "offsets"),
        default="average",
        help="how contexts learn from each other: their tables averaged with the pooled one, or its qualities moved "
        "by one offset a tier (default: %(default)s)",
    )
    parser.add_argument("--readings", help="readings to use, by name (default: all)")
    parser.add_argument(
        "--bins",
        type=whole("bins", 1),
        help="the most bins of a reading (default: 8, as many as are useful for thresholds)",
    )
    parser.add_argument(
        "--solver",
        choices=("lattice", "pomdp-py:pouct", "pomdp-py:value-iteration"),
        default="lattice",
        help="lattice: exact; pomdp-py: its planners, for comparison (default: %(default)s)",
    )
    parser.add_argument(
        "--simulations",
        type=whole("simulations", 1),
        default=1000,
        help="of a decision of pomdp-py:pouct (default: %(default)s)",
    )
    parser.add_argument(
        "--abstain",
        type=number("abstain", 0.0, 1.0),
        help="worth of handing a query over, in quality (default: never)",
    )


def read_learner(options: argparse.Namespace, tell: Tell) -> Learner | None:
    """The way of learning that was named; None leaves the choice to cross-fitting."""
    from metaverify.fitting.chain import Thresholds
    from metaverify.fitting.learner import TableLearner
    from metaverify.fitting.models.zoo import MODELS
    from metaverify.fitting.select import TIERS

    model = MODELS[options.model]()
    on_rows = options.method in ("thresholds", "optuna")
    if options.pooling != "average" and (options.solver != "lattice" or on_rows):
        raise ValueError("--pooling is of tables: it goes with --method auto, chain or lattice and --solver lattice")
    tuning = {name: getattr(options, name) for name in ("trials", "cuts", "storage")}
    given = {name: value for name, value in tuning.items() if value is not None}
    if given and (options.solver != "lattice" or options.method != "optuna"):
        raise ValueError(f"--{next(iter(given))} goes with --method optuna")
    if options.solver != "lattice":
        from metaverify.fitting.pomdp_learner import PomdpLearner

        solver = options.solver.removeprefix("pomdp-py:")
        return PomdpLearner(
            model,
            solver=solver,
            simulations=options.simulations,
            bins=options.bins or 8,
            abstain=options.abstain,
            seed=options.seed,
        )
    if options.method == "auto":
        return None
    if options.method == "thresholds":
        return Thresholds(options.bins, context=True)
    if options.method == "optuna":
        from metaverify.fitting.tuned import TunedChains, Watch

        if options.storage is not None and "://" not in options.storage:
            check_out(options.storage)
        watch = Watch(lambda done, wanted: tell(f"trial {done} of {wanted}", None))
        return TunedChains(options.budget, seed=options.seed, watch=watch, **given)
    return TableLearner(
        model,
        policies="chain" if options.method == "chain" else "lattice",
        bins=options.bins or 8,
        pooling=options.pooling,
        tiers=TIERS,
        abstain=options.abstain,
        budget=options.budget,
    )


def named_model(options: argparse.Namespace) -> TableModel | None:
    """The model that was named; None where it is the default."""
    from metaverify.fitting.models.zoo import MODELS

    return None if options.model == "default" else MODELS[options.model]()


def say_interrupted(learner: Learner | None) -> None:
    """One line on stderr where a search was cut short."""
    from metaverify.fitting.tuned import TunedChains

    if isinstance(learner, TunedChains) and learner.watch.most is not None:
        print(f"metaverify: interrupted; kept the best of {learner.watch.most} trials a study", file=sys.stderr)
