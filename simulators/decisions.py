"""What a router decided, read back as rows of a log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from metaverify.simulators.files import scan_table, told_as_log_errors
from metaverify.simulators.log import LogError
from metaverify.simulators.sheet import Sheet
from metaverify.simulators.steps import ENDS, check_step, read_step

__all__ = ["join_labels", "read_decisions", "read_labels", "request_rows", "single_labels"]

_SCHEMA = {
    "query_id": pl.String,
    "context": pl.String,
    "tier": pl.String,
    "reading": pl.String,
    "confidence": pl.Float64,
    "cost": pl.Float64,
    "verify_cost": pl.Float64,
    "propensity": pl.Float64,
}


def read_decisions(path: str | os.PathLike[str]) -> tuple[pl.DataFrame, int]:
    """A decision log (`DecisionLog`) in the long form that `read_log` reads, and how many lines were skipped.

    One row for each reading, and one for each answer or signal without any: ``query_id`` (the request's key),
    ``context``, ``tier``, ``reading``, ``confidence``, ``cost`` of the answer, ``verify_cost`` of the reading, and
    ``propensity``, the chance that it was bought.  A tier that was not called has a row with its propensity alone,
    where that is known.
    A router does not know what was right: `join_labels` adds that.  Where not every tier was called the rows are a
    partial log, for `read_partial_log`; requests that a guard moved to a cheaper graph have no propensity, and are left
    out of what is joined.

    Purchases that failed are left out, readings that failed are missing.  Votes become the share of those that were
    asked for.  Of a key that came several times the last whole request counts.  Lines that a crash cut short are
    skipped and counted, and with them the others of their request: half a request would be another one.

    Raises:
        LogError: the file cannot be read, a line is none of a decision log, or a request has no key.
    """
    file = Path(path)
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise LogError("E_FILE", f"{file.name}: cannot be read: {error.strerror or error}") from error
    requests: dict[str, list[dict[str, Any]]] = {}  # whole ones
    begun: dict[str, list[dict[str, Any]]] = {}
    kinds: dict[str, tuple[Any, int]] = {}
    skipped = 0
    for number, line in enumerate(lines, start=1):
        place = f"{file.name} line {number}"
        step = read_step(line, place)
        if step is None:
            skipped += bool(line.strip())
            continue
        key = str(step["key"])
        before, first = kinds.setdefault(key, (step["key"], number))
        if before != step["key"]:
            fault = f"the key {step['key']!r} is {before!r} in line {first}, which is the same query"
            raise LogError("E_DUPID", f"{place}: {fault}; write keys either as text or as numbers")
        if step["step"] == 0:
            skipped += len(begun.pop(key, ()))
        if step["step"] != len(begun.get(key, ())):  # what is between was lost
            skipped += 1 + len(begun.pop(key, ()))
            continue
        begun.setdefault(key, []).append(step)
        if step["action"] in ENDS:
            requests[key] = begun.pop(key)
    skipped += sum(map(len, begun.values()))
    if skipped and not kinds:
        raise _no_step(file.name, b"\n".join(lines))
    rows = [row for key, steps in requests.items() for row in _rows(key, steps)]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row"), skipped


def _no_step(name: str, raw: bytes) -> LogError:
    """The complaint about a file without a single whole line."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        fault = f"{name} is no UTF-8 text (byte {error.start + 1} is 0x{raw[error.start]:02x})"
        return LogError("E_ENCODING", f"{fault}; give the file that DecisionLog wrote")
    return LogError("E_SYNTAX", f"{name} has no line that is JSON; give the file that DecisionLog wrote")


def request_rows(key: str, steps: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The steps of one request as rows of the long form, by column; see `read_decisions`.

    Raises:
        LogError: one of them is none.
    """
    for step in steps:
        check_step(step, f"step {step.get('step')}")
    return (dict(zip(_SCHEMA, row, strict=True)) for row in _rows(key, steps))


def _rows(key: str, steps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """A request's rows of the long form."""
    costs: dict[str, float] = {}
    chance: dict[tuple[str, str | None], float | None] = {}
    readings: dict[tuple[str, str], list[Any]] = {}  # confidences, or votes one by one, and what they cost in all
    read: set[str] = set()
    for step in steps:
        tier, reading = step["tier"], step["reading"]
        if step["action"] == "call" and step["reason"] in ("", "fallback", "invalid", "invalid cost", "explored"):
            costs[tier] = step["cost"]
            chance[tier, None] = step["propensity"]
            for name, confidence in step["confidence"].items():
                readings[tier, name] = [_share(confidence), 1, 0.0]
        elif step["action"] == "verify":
            told = _share(step["confidence"].get(reading))
            before, asked, paid = readings.get((tier, reading), [0.0, 0, 0.0])
            mean = None if told is None or before is None else (before * asked + told) / (asked + 1)
            readings[tier, reading] = [mean, asked + 1, paid + step["cost"]]
            chance.setdefault((tier, reading), step["propensity"])
    context = steps[-1].get("context")
    for (tier, name), (confidence, _, paid) in readings.items():
        read.add(tier)
        own = chance.get((tier, name), chance.get((tier, None)))
        yield key, context, tier, name, confidence, costs.get(tier), paid, own
    for tier in sorted(costs.keys() - read):
        yield key, context, tier, None, None, costs[tier], None, chance[tier, None]
    for tier, propensity in steps[-1].get("unseen", {}).items():
        yield key, context, tier, None, None, None, None, propensity


def read_labels(path: str | os.PathLike[str]) -> pl.DataFrame:
    """A table of labels, as `join_labels` wants it: ``query_id``, ``tier``, ``correct`` in [0, 1], and
    ``label_propensity`` where it has that.

    Raises:
        LogError: it cannot be read, lacks a column, or a cell is none.
    """
    file = Path(path)
    with told_as_log_errors(file):
        frame = scan_table(file).collect()
    _check_columns(frame, f"{file.name}: the labels have")
    sheet = Sheet(file.name, frame, np.arange(1, len(frame) + 1))
    told = {"correct": sheet.correctness("correct", "nothing where it is not known")}
    if "label_propensity" in sheet:
        told["label_propensity"] = sheet.numbers("label_propensity", "give a probability")
    ids = {name: sheet.texts(name) for name in ("query_id", "tier")}
    for name, texts in ids.items():
        sheet.refuse("E_MISSING", texts.is_null().to_numpy(), name, "empty; say whose answer the label is of")
    return pl.DataFrame({**ids, **told}).with_columns(pl.col(list(told)).fill_nan(None))


def _check_columns(labels: pl.DataFrame, subject: str) -> None:
    for column in ("query_id", "tier", "correct"):
        if column not in labels.columns:
            has = ", ".join(labels.columns)
            raise LogError("E_COLUMN", f"{subject} no column {column!r} (they have {has}); add it")


def join_labels(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """The rows of `read_decisions` with ``correct`` (and ``label_propensity``, where there is one) of ``labels``, by
    (query_id, tier); requests without propensities are left out, and labels of answers that were not bought.

    Raises:
        LogError: a column is missing of the labels, or they have an answer twice, as `single_labels` says.
    """
    keys, labels = ["query_id", "tier"], single_labels(labels)
    moved = rows.filter(pl.col("propensity").is_null())["query_id"].unique()
    kept = rows.filter(~pl.col("query_id").is_in(moved.implode()))
    joined = kept.join(labels, on=keys, how="left", maintain_order="left")
    own = [column for column in labels.columns if column not in keys]
    return joined.with_columns(pl.when(pl.col("cost").is_not_null()).then(pl.col(own)).name.keep())


def single_labels(labels: pl.DataFrame) -> pl.DataFrame:
    """The labels, one of an answer: said again it is the same one, and none beside one is none.

    Raises:
        LogError: a column is missing, or an answer has two labels that differ.
    """
    keys = ["query_id", "tier"]
    _check_columns(labels, "the labels have")
    wanted = [*keys, "correct", *(c for c in labels.columns if c == "label_propensity")]
    labels = labels.select(wanted).with_columns(pl.col(keys).cast(pl.String)).unique(maintain_order=True)
    known = pl.col("correct").is_not_null()
    labels = labels.filter(known | ~known.any().over(keys))
    twice = labels.filter(labels.select(keys).is_duplicated())
    if len(twice):
        query, tier, *_ = twice.row(0)
        raise LogError("E_DUPID", f"the labels have {tier!r} of query {query!r} twice, and they differ; keep one")
    return labels


def _share(told: Any) -> float | None:
    """A confidence, or the share of votes that were yes."""
    if isinstance(told, list):
        return told[0] / told[1] if told[1] else None
    return None if told is None else float(told)
