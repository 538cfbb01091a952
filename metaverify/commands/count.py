"""`metaverify count`."""

from __future__ import annotations

import argparse
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add as add_up
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_costs, parse_names, parse_signals, parse_votes
from metaverify.options import add_log, whole
from metaverify.output import check_out, print_json, progress

if TYPE_CHECKING:
    from metaverify.simulators.counting import Cuts
    from metaverify.simulators.counts import Counts
    from metaverify.simulators.sketch import Sketch

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify count 'logs/*.parquet' -o counts.parquet"

CELLS = {"bins": 32, "batches": 32, "cells": 100_000}
"""What cells are made of, and how many of it unless more is said."""

COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("tiers", "samples", "context", "group", "weight")),
    **{name: [] for name in ("signal", "votes", "cost")},
    "scale": 1.0,
}
"""How columns are to be taken, where nothing is said."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_log(parser, "+")
    parser.add_argument("-o", "--out", required=True, help="the counts, a log in .parquet that every command takes")
    parser.add_argument(
        "--sketch",
        action="store_true",
        help="write the sketch only, of which the sum with others' makes --cuts for all",
    )
    parser.add_argument(
        "--cuts", metavar="FILE", help="where bins meet: other counts, a sketch, or a policy (default: even bins)"
    )
    parser.add_argument(
        "--bins", type=whole("bins", 2), default=CELLS["bins"], help="of a reading, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--batches",
        type=whole("batches", 2),
        default=CELLS["batches"],
        help="random parts of the log's groups, for folds and intervals (default: %(default)s)",
    )
    parser.add_argument(
        "--cells",
        type=whole("cells", 100),
        default=CELLS["cells"],
        help="bins are made coarser where there could be more cells (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Count logs into cells, or add up what was counted."""
    from metaverify.simulators.counts import is_counted, load_counts, load_sketch
    from metaverify.simulators.frames import files_of

    check_out(options.out)
    files = files_of(options.log)
    kinds = {is_counted(file) for file in files}
    if kinds == {"counts"}:
        _refuse_said(options, ("cuts", "sketch", *CELLS, *COLUMNS), "counts are added up as they are")
        _write_counts(options, _sum(files, load_counts))
    elif kinds == {"sketch"}:
        _refuse_said(options, ("cuts", *CELLS, *COLUMNS), "sketches are added up as they are")
        _write_sketch(options, _sum(files, load_sketch))
    elif options.sketch:
        from metaverify.simulators.sketching import sketch

        _refuse_said(options, ("cuts", *CELLS), "a sketch has no bins yet: it is for --cuts of the counts to come")
        with progress() as tell:
            _write_sketch(options, sketch(files, progress=tell, **_said(options)))
    else:
        from metaverify.simulators.counting import count

        cuts, context_cuts = _cuts(options.cuts)
        with progress() as tell:
            counts = count(
                files,
                cuts=cuts,
                bins=options.bins,
                batches=options.batches,
                cells=options.cells,
                context_cuts=context_cuts,
                progress=tell,
                **_said(options),
            )
        _write_counts(options, counts)


def _refuse_said(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Make sure that nothing is said that would be ignored.

    Raises:
        ValueError: an option would say nothing.
    """
    usual = {**CELLS, **COLUMNS, "cuts": None, "sketch": False}
    for name in names:
        if getattr(options, name) != usual[name]:
            raise ValueError(f"--{name} says nothing here: {why}; leave it out, or give it when the logs are counted")


def _said(options: argparse.Namespace) -> dict[str, Any]:
    """How the options say that the columns are to be taken."""
    return {
        "tiers": parse_names(options.tiers),
        "context": parse_names(options.context) or (),
        "costs": parse_costs(options.cost),
        "scale": options.scale,
        "group": options.group,
        "weight": options.weight,
        "signals": parse_signals(options.signal),
        "votes": parse_votes(options.votes),
        "samples": parse_names(options.samples) or (),
    }


def _cuts(path: str | None) -> tuple[Cuts | None, dict[str, tuple[float, ...]]]:
    """Where bins meet, and where contexts that are numbers are cut."""
    from metaverify.policies.file import load_policy
    from metaverify.simulators.counts import is_counted, load_counts, load_sketch

    if path is None:
        return None, {}
    kind = is_counted(path)
    if kind == "counts":
        counts = load_counts(path)
        return counts, dict(counts.cells.context_cuts)
    if kind == "sketch":
        sketch = load_sketch(path)
        return sketch, dict(sketch.outline.context_cuts)
    if path.lower().endswith((".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")):
        raise ValueError(
            f"--cuts {path} is a log, which has no edges yet; count it first (metaverify count {path} -o "
            "counts.parquet), and give --cuts counts.parquet, or a sketch or a policy"
        )
    policy = load_policy(path)
    return policy, dict(policy.context_cuts)


def _sum(files: Sequence[str], load: Callable[[str], Any]) -> Any:
    """What was counted, added up.

    Raises:
        LogError: two files hold the same, so that one is a copy of the other.
    """
    from metaverify.simulators.log import LogError

    known: dict[bytes, str] = {}
    for file in files:
        first = known.setdefault(hashlib.sha256(pathlib.Path(file).read_bytes()).digest(), file)
        if first != file:
            raise LogError(
                "E_FILE",
                f"{first} and {file} hold the same to the last byte, which would count twice; name one of them (in "
                "Python + adds up whatever it is given)",
            )
    return reduce(add_up, map(load, files))


def _write_counts(options: argparse.Namespace, counts: Counts) -> None:
    counts.save(options.out)
    found = {"out": options.out, "queries": counts.queries, "cells": len(counts), "batches": counts.cells.batches}
    if options.json:
        bins = {f"{s.name} {r.name}": len(r.values) for s in counts.cells.sources for r in s.readings}
        print_json({**found, "bins": bins, "notes": list(counts.notes)})
        return
    for note in counts.notes:
        print(note)
    print(f"wrote {options.out}: {counts.queries:,} queries in {len(counts):,} cells, {counts.cells.batches} batches")


def _write_sketch(options: argparse.Namespace, sketch: Sketch) -> None:
    from metaverify.simulators.counts import save_sketch

    save_sketch(sketch, options.out)
    if options.json:
        print_json({"out": options.out, "queries": sketch.rows, "rank_error": sketch.rank_error})
        return
    print(f"wrote {options.out}: {sketch.rows:,} queries; a rank is known to {100 * sketch.rank_error:.3f} %")
