"""Every estimator of a joint table, by the name that the command line knows it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from metaverify.fitting.models.automix import AutoMixCounts, AutoMixKDE
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.calibrated import Calibrated
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.kernel import RankKernel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.patterns import Patterns

__all__ = ["MODELS", "default_model", "name_of"]


def default_model() -> TableModel:
    """What is used where no model is named."""
    return Average((Copula(), Patterns()))


def name_of(model: TableModel) -> str:
    """A model in a word or a few, for the record."""
    if isinstance(model, Average):
        return " + ".join(name_of(each) for each in model.models)
    return type(model).__name__.lower()


MODELS: Mapping[str, Callable[[], TableModel]] = MappingProxyType(
    {
        "default": default_model,
        "copula": Copula,
        "patterns": Patterns,
        "latent": LatentClasses,
        "kernel": RankKernel,
        "counts": Counts,
        "platt": partial(Calibrated, "platt"),
        "isotonic": partial(Calibrated, "isotonic"),
        "automix-counts": AutoMixCounts,
        "automix-kde": AutoMixKDE,
    }
)
