"""Make the log that ships with metaverify: four real classifiers read the 1,797 handwritten digits of scikit-learn.

    python examples/make_digits_log.py                    writes simulators/digits.csv.gz
    python examples/make_digits_log.py my-digits.csv.gz

It needs the ``fit`` extra and no network.  Every image is scored by models that were fitted on other images (five
stratified folds).  The tiers, cheapest first:

    tiny    a decision tree, grown on 200 images
    small   Gaussian naive Bayes on 16 means of 2 x 2 pixels
    medium  a network with 96 hidden units, fitted on 200 images
    large   the 5 nearest neighbours among all other folds' images, closer ones counting more

A cost is in thousands of multiply-adds, counted from the fitted model for the very image (see each ``fit_*``).
Two readings of each answer: ``conf_<tier>``, the model's own probability, comes with the answer; and
``conf_votes_<tier>``, the share of 8 noisy copies of the image on which the tier repeats its answer, costs 8 calls.
``ink``, a third of the images each, is known before any call.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OUTPUT = Path(__file__).resolve().parent.parent / "simulators" / "digits.csv.gz"
SEED = 0
FOLDS = 5
FEW = 200  # images that tiny and medium are fitted on
VOTES = 8
NOISE = 2.5 / 16  # standard deviation of a copy's pixels, which run from 0 (paper) to 1 (ink)
INK = ("light", "medium", "heavy")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A fitted tier: images [n, 64] to the probabilities of the ten digits [n, 10], and to multiply-adds spent [n]."""

    probabilities: Callable[[Floats], Floats]
    multiply_adds: Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Scores:
    """What one tier did on every image: a column a quantity, each [n], costs in thousands of multiply-adds."""

    own: Floats
    votes: Floats
    correct: Floats
    cost: Floats
    votes_cost: Floats


def fit_tiny(images: Floats, digits: Ints) -> Classifier:
    """A tree of leaves of five images or more.  A comparison counts as one multiply-add."""
    tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=SEED).fit(images[:FEW], digits[:FEW])
    return Classifier(tree.predict_proba, lambda x: np.asarray(tree.decision_path(x).sum(axis=1), float).ravel() - 1)


def fit_small(images: Floats, digits: Ints) -> Classifier:
    """Naive Bayes on pooled pixels: 64 additions to pool, then a difference squared and scaled, 2 a mean."""
    bayes = GaussianNB().fit(pooled(images), digits)
    return Classifier(lambda x: bayes.predict_proba(pooled(x)), constant(64 + 2 * bayes.theta_.size))


def fit_medium(images: Floats, digits: Ints) -> Classifier:
    """A network with one hidden layer: one multiply-add a weight."""
    network = MLPClassifier((96,), alpha=0.1, max_iter=3000, random_state=SEED).fit(images[:FEW], digits[:FEW])
    return Classifier(network.predict_proba, constant(sum(layer.size for layer in network.coefs_)))


def fit_large(images: Floats, digits: Ints) -> Classifier:
    """Nearest neighbours: one multiply-add a pixel of every image it was given."""
    neighbours = KNeighborsClassifier(5, weights="distance", algorithm="brute").fit(images, digits)
    return Classifier(neighbours.predict_proba, constant(images.size))


TIERS = {"tiny": fit_tiny, "small": fit_small, "medium": fit_medium, "large": fit_large}


def constant(price: int) -> Callable[[Floats], Floats]:
    """The same price for every image."""
    return lambda images: np.full(len(images), float(price))


def pooled(images: Floats) -> Floats:
    """The means of 2 x 2 pixels: [n, 64] to [n, 16]."""
    return np.asarray(images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16))


def noisy_copies(images: Floats) -> Floats:
    """The copies that every tier votes on, [votes, n, 64]."""
    noise = np.random.default_rng(SEED).normal(0.0, NOISE, (VOTES, *images.shape))
    return np.clip(images + noise, 0.0, 1.0)


def ink_terciles(images: Floats) -> list[str]:
    """How much ink each image has, in thirds."""
    ink = images.sum(axis=1)
    return [INK[third] for third in np.searchsorted(np.quantile(ink, [1 / 3, 2 / 3]), ink, side="right")]


def cross_fitted(fit: Callable[[Floats, Ints], Classifier], images: Floats, digits: Ints) -> Scores:
    """One tier's scores on every image, by models that were fitted on the other folds."""
    copies = noisy_copies(images)
    scores = Scores(*np.empty((5, len(images))))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for number, (train, test) in enumerate(folds.split(images, digits)):
        train = np.random.default_rng([SEED, number]).permutation(train)
        model = fit(images[train], digits[train])
        probabilities = model.probabilities(images[test])
        answer = probabilities.argmax(axis=1)
        again = np.stack([model.probabilities(copy[test]).argmax(axis=1) for copy in copies])
        scores.own[test] = probabilities.max(axis=1)
        scores.votes[test] = (again == answer).mean(axis=0)
        scores.correct[test] = answer == digits[test]
        scores.cost[test] = model.multiply_adds(images[test]) / 1000
        scores.votes_cost[test] = sum(model.multiply_adds(copy[test]) for copy in copies) / 1000
    return scores


def columns(tier: str, scores: Scores) -> dict[str, Any]:
    """One tier's columns of the log."""
    return {
        f"conf_{tier}": scores.own.round(4),
        f"conf_votes_{tier}": scores.votes.round(4),
        f"correct_{tier}": scores.correct.astype(int),
        f"cost_{tier}": scores.cost.round(4),
        f"verify_cost_votes_{tier}": scores.votes_cost.round(4),
    }


def report(scored: dict[str, Scores]) -> str:
    """A line a tier: price, accuracy, mean confidence, and how well each reading tells right from wrong."""
    lines = [f"{'tier':8} {'price':>9} {'accuracy':>9} {'mean conf':>10} {'AUROC conf':>11} {'AUROC votes':>12}"]
    for tier, s in scored.items():
        own, votes = (roc_auc_score(s.correct, reading) for reading in (s.own, s.votes))
        means = f"{s.cost.mean():9.4f} {s.correct.mean():9.4f} {s.own.mean():10.4f}"
        lines.append(f"{tier:8} {means} {own:11.3f} {votes:12.3f}")
    return "\n".join(lines)


def main(output: Path) -> None:
    """Score every image by every tier, write the log, print the table."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    scored = {tier: cross_fitted(fit, images, digits) for tier, fit in TIERS.items()}
    frame = pl.DataFrame(
        {"query_id": [f"digit-{i:04d}" for i in range(len(images))], "ink": ink_terciles(images)}
        | {name: column for tier, scores in scored.items() for name, column in columns(tier, scores).items()}
    )
    output.write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
    print(report(scored))
    print(f"{output}: {len(frame)} images, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
