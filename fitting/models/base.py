"""What every estimator of a joint table has in common: it is a scikit-learn estimator with one method of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from sklearn.base import BaseEstimator

from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.observation import ObservationModel
from metaverify.fitting.table import JointTable
from metaverify.simulators.log import ReplayLog

__all__ = ["HiddenStateModel", "TableModel", "at_least"]

BINS = 8  # of a reading, where a log is given uncoded


class TableModel(BaseEstimator):  # type: ignore[misc]
    """From a log to a joint table.

    Subclasses are dataclasses of their options, so that ``get_params``, ``set_params`` and ``clone`` work, and
    have one method to write, ``table``.

    Attributes:
        table_: after ``fit``, the joint table [1, *leaf].
    """

    table_: JointTable

    @abstractmethod
    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of these rows, contexts not told apart: one row on its context axis."""

    def fit(self, log: ReplayLog | CodedLog, y: None = None) -> Self:
        """Estimate the table of a log; one that is not yet coded is cut into 8 bins a reading."""
        del y
        coded = log if isinstance(log, CodedLog) else code_log(log, ladders_of(log, BINS))
        self.table_ = self.table(coded)
        return self


class HiddenStateModel(TableModel):
    """A table that comes from hidden states: given the state, the outcomes of all rungs are independent.

    Subclasses write ``observe``.
    """

    @abstractmethod
    def observe(self, coded: CodedLog) -> ObservationModel:
        """The hidden states behind these rows, contexts not told apart."""

    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of the coded rows, summed over the hidden states."""
        return self.observe(coded).table()


def at_least(least: float, model: TableModel, *options: str) -> None:
    """Make sure that these options of a model are no less than that.

    Raises:
        ValueError: naming the option and its value.
    """
    for option in options:
        value = getattr(model, option)
        if not value >= least:
            raise ValueError(f"{option} of {type(model).__name__} is {value}; give at least {least:g}")
