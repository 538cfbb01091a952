"""Samples of the Language Model Evaluation Harness (``--log_samples``), one file a model and task."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused

__all__ = ["IMPORTER"]

_NAME = re.compile(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.+-]+\.(?:jsonl|json)")
_NUMBERS = (int, float)


def read(source: Source) -> Iterator[Record | Unused]:
    """The samples with ``model``, ``task``, ``query_id``, ``correct`` and the confidences of the chosen option.

    The model is the folder's name.  Of several filters the first of a file counts, unless ``filter`` is asked for.
    """
    name = _NAME.fullmatch(source.path.name.removesuffix(".gz"))
    known = {"model": source.path.resolve().parent.name} | ({"task": name[1]} if name else {})
    first: Any = None
    for found in source.records():
        if isinstance(found, Unused):
            yield found
            continue
        sample = found.values
        first = sample.get("filter") if first is None else first
        if "doc_hash" not in sample:
            yield Unused(found.line, "has no doc_hash, which harnesses from 0.4.3 on write")
        elif "filter" not in source.where and sample.get("filter") != first:
            yield Unused(found.line, "is the same sample after another filter", sample.get("filter"))
        else:
            own = {"query_id": ":".join(filter(None, [known.get("task"), str(sample["doc_hash"])]))}
            yield Record(found.line, {**known, **own, **_confidences(sample), "correct": _correct(sample), **sample})


def _correct(sample: Mapping[str, Any]) -> Any:
    """``acc`` or ``exact_match``, else the first metric that is a number."""
    metrics = ["acc", "exact_match", *(sample.get("metrics") or ())]
    return next((sample[m] for m in metrics if isinstance(sample.get(m), _NUMBERS)), None)


def _confidences(sample: Mapping[str, Any]) -> dict[str, float]:
    """The probability of the option that has most, as ``acc`` chooses (``confidence``) and by letters or bytes, as
    ``acc_norm`` and ``acc_bytes`` do; none where the options' log-likelihoods are not there."""
    likelihoods = _likelihoods(sample.get("filtered_resps"))
    if likelihoods is None:
        return {}
    if "acc_mutual_info" in (sample.get("metrics") or ()):
        likelihoods = likelihoods[: len(likelihoods) // 2]
    found = {"confidence": _largest_share(likelihoods)}
    arguments = sample.get("arguments")
    options = [_option(arguments, at) for at in range(len(likelihoods))]
    lengths: dict[str, Callable[[str], int]] = {"norm": len, "bytes": lambda text: len(text.encode("utf-8", "replace"))}
    for name, length in lengths.items():
        if all(options):
            by = [one / length(text or " ") for one, text in zip(likelihoods, options, strict=True)]
            found[f"confidence_{name}"] = _largest_share(by)
    return found


def _likelihoods(responses: Any) -> list[float] | None:
    """Of options: each response is a log-likelihood and whether it is the greedy one."""
    if not isinstance(responses, list) or len(responses) < 2:
        return None
    try:
        found = [float(one[0]) for one in responses if isinstance(one, list) and len(one) == 2]
    except (TypeError, ValueError):
        return None
    return found if len(found) == len(responses) and all(math.isfinite(one) for one in found) else None


def _option(arguments: Any, at: int) -> str | None:
    asked = arguments.get(f"gen_args_{at}") if isinstance(arguments, dict) else None
    text = asked.get("arg_1") if isinstance(asked, dict) else None
    return text.removeprefix(" ") if isinstance(text, str) else None


def _largest_share(logits: Sequence[float]) -> float:
    top = max(logits)
    return 1.0 / math.fsum(math.exp(one - top) for one in logits)


IMPORTER = Importer(
    read,
    {
        "query_id": ("query_id",),
        "tier": ("model",),
        "correct": ("correct",),
        "confidence": ("confidence",),
        "task": ("task",),
    },
    whole=True,
)
"""There are no prices."""
