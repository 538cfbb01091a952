"""The log that ships with the package: four real classifiers on 1,797 handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable

from metaverify.simulators.log import ReplayLog
from metaverify.simulators.reader import read_log

__all__ = ["digits_path", "load_digits_log"]


def digits_path() -> Traversable:
    """Where the log lies in the installed package: a gzipped CSV file in the wide columns of every log."""
    return files("metaverify.simulators") / "digits.csv.gz"


def load_digits_log(*, context: str | Sequence[str] = ()) -> ReplayLog:
    """The log; its one context column is ``ink``: light, medium or heavy, a third of the images each.

    The tiers are a decision tree, naive Bayes, a small network and nearest neighbours; every image was scored by
    models that were fitted on other images.  Costs are in thousands of multiply-adds.  A tier's own probability
    comes with its answer; ``votes``, the share of 8 noisy copies of the image on which it repeats that answer,
    costs 8 calls.  ``examples/make_digits_log.py`` makes the file.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    1998, as bundled with scikit-learn.
    """
    with as_file(digits_path()) as path:
        return read_log(path, context=context)
