"""Logs of Inspect (``.eval`` and its JSON), through its own reader: the extra ``inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.log import LogError

__all__ = ["IMPORTER"]

_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0}
_LEFT_OUT = {"store", "events", "attachments", "messages", "timelines"}


def read(source: Source) -> Iterator[Record | Unused]:
    """The samples with ``model``, ``task``, ``query_id``, ``group_id``, ``correct`` and ``cost``.

    Raises:
        LogError: the extra is missing, or the file is none of Inspect's.
    """
    try:
        from inspect_ai.log import read_eval_log, read_eval_log_samples
    except ModuleNotFoundError as error:
        if error.name != "inspect_ai":
            raise
        raise LogError("E_OPTION", "logs of Inspect need its own reader: pip install 'metaverify[inspect]'") from error
    file = str(source.path)
    try:
        head = read_eval_log(file, header_only=True)
        samples = read_eval_log_samples(file, all_samples_required=False, exclude_fields=_LEFT_OUT)
    except Exception as error:  # whatever its reader raises: a zip, a JSON or a model that is not one
        yield Unused(1, "is no log of Inspect, as its reader says", error)
        return
    known = {"model": head.eval.model, "task": head.eval.task}
    roles = [role for role, of in (head.eval.model_roles or {}).items() if _model(of) == head.eval.model]
    count = max((head.results.total_samples if head.results else 0), 1)
    at = 0
    while True:
        at += 1
        source.tell(min(at / count, 1.0))
        try:
            sample = next(samples, None)
        except Exception as error:
            yield Unused(at, "and all samples after it cannot be read, as Inspect's reader says", error)
            return
        if sample is None:
            return
        yield _record(at, sample, known, roles)


def _record(at: int, sample: Any, known: Mapping[str, str], roles: Sequence[str]) -> Record | Unused:
    if sample.error is not None:
        return Unused(at, "is a sample that ended in an error", sample.error.message)
    plain = sample.model_dump(mode="json", exclude=_LEFT_OUT, exclude_none=True)
    scores = plain.get("scores") or {}
    grade = next((score.get("value") for score in scores.values()), None)
    group = f"{known['task']}/{sample.id}"
    own = {
        "query_id": group if sample.epoch == 1 else f"{group}/{sample.epoch}",
        "group_id": group,
        "correct": _GRADES.get(grade, grade) if isinstance(grade, str) else grade,
        "cost": _cost(plain, known["model"], roles),
    }
    return Record(at, {**plain, **known, **own})


def _model(of: Any) -> str:
    """The model of a role; of several Inspect takes the first."""
    return str((of[0] if isinstance(of, list) else of).model)


def _cost(sample: Mapping[str, Any], model: str, roles: Sequence[str]) -> float | None:
    """What the log's own model cost, apart from what it did in roles, such as grading itself; None where Inspect does
    not say."""
    usages = [sample.get("model_usage", {}).get(model, {})]
    usages += [usage for role, usage in sample.get("role_usage", {}).items() if role in roles]
    costs = [usage.get("total_cost") for usage in usages]
    return None if None in costs else max(costs[0] - sum(costs[1:]), 0.0)


IMPORTER = Importer(
    read,
    {
        "query_id": ("query_id",),
        "group_id": ("group_id",),
        "tier": ("model",),
        "correct": ("correct",),
        "cost": ("cost",),
        "task": ("task",),
    },
    whole=True,
)
"""What was correct is the first scorer's grade; confidences are what a scorer or a solver left, and are mapped."""
