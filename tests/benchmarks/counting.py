"""How fast a log of any size is counted and fitted, beside the bare scan and group-by of polars over the same columns.

Run as ``python -m tests.benchmarks.counting [million ...]`` from the root of the repository.  The logs are drawn once,
in pieces, into ``build/counting`` (some 30 MB a million queries).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "counting"
PIECE = 250_000  # queries of a file
WORLD = ("token_prices", "--levels", "64", "--missing", "0.02", "--seed", "1")
BUDGET = 6.0
TURNS = 3  # of each side; the best counts


def pieces(millions: int) -> list[str]:
    """The first files of the drawn log, of so many million queries in all."""
    wanted = [FOLDER / f"log-{at:04d}.parquet" for at in range(1, millions * 1_000_000 // PIECE + 1)]
    if not all(file.exists() for file in wanted):
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["simulate", *WORLD, "-n", str(millions * 1_000_000), "--pieces", str(len(wanted))]
        subprocess.run([sys.executable, "-m", "metaverify", *command, "-o", str(FOLDER / "log.parquet")], check=True)
    return [str(file) for file in wanted]


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What some work gives, and how long it took."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processor}


def bare(files: list[str], bins: dict[str, int], batches: int) -> dict[str, Any]:
    """The same columns scanned and grouped by hand: even bins, as many; polars' own hash of the id; counts and sums."""
    import polars as pl

    table = pl.scan_parquet(files, glob=False)
    names = table.collect_schema().names()
    keys = [
        (pl.col(f"conf_{tier}") * count).floor().cast(pl.Int8).alias(f"conf {tier}") for tier, count in bins.items()
    ]
    keys += [(pl.col(name) >= 0.5).alias(f"right {name}") for name in names if name.startswith("correct_")]
    keys.append((pl.col("query_id").hash() % batches).cast(pl.Int16).alias("batch"))
    sums = [pl.col(name).sum() for name in names if name.startswith("cost_")]
    query = table.group_by(keys).agg(pl.len().alias("queries"), *sums)
    cells, taken = timed(lambda: query.collect(engine="streaming"))
    return {"cells": len(cells), **taken}


def counted(files: list[str], save: str | None) -> dict[str, Any]:
    """Count, then fit."""
    from metaverify.fitting.fit import fit
    from metaverify.simulators.counting import count

    counts, counting = timed(lambda: count(files))
    fitted, fitting = timed(lambda: fit(counts, budget=BUDGET))
    if save:
        counts.save(save)
    bins = {source.name: len(source.readings[0].values) for source in counts.cells.sources}
    gain = fitted.outcome.gain
    return {
        "cells": len(counts),
        "queries": counts.queries,
        "bins": bins,
        "batches": counts.cells.batches,
        "notes": counts.notes,
        "count": counting,
        "fit": fitting,
        "gain": [gain.low, gain.mean, gain.high],
    }


def fitted(file: str) -> dict[str, Any]:
    """Fit from a counts file: the best of three."""
    from metaverify.fitting.fit import fit
    from metaverify.simulators.counts import load_counts

    taken = [timed(lambda: fit(load_counts(file), budget=BUDGET))[1] for _ in range(3)]
    return {"cells": len(load_counts(file)), **{kind: min(each[kind] for each in taken) for kind in ("wall", "cpu")}}


class OnlyOurs(MetaPathFinder):
    """Hides what development needs and a fit does not, so that memory is that of an installation with `fit` alone."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Nothing of pandas and pyarrow, which scikit-learn loads where it finds them."""
        del path, target
        if name.partition(".")[0] in ("pandas", "pyarrow"):
            raise ModuleNotFoundError(name, name=name)


STEPS = {"bare": bare, "counted": counted, "fitted": fitted}


def alone(step: str, *arguments: Any) -> dict[str, Any]:
    """A step in a process of its own, with its peak memory."""
    command = [sys.executable, "-m", "tests.benchmarks.counting", "--step", step, json.dumps(arguments)]
    kept = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=kept, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.counting")
    parser.add_argument("millions", type=int, nargs="*", default=[1, 10, 50])
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        sys.meta_path.insert(0, OnlyOurs())
        step, arguments = options.step
        found = STEPS[step](*json.loads(arguments))
        print(json.dumps({**found, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'queries':>10}  {'':22}{'wall s':>8}{'cpu s':>8}{'MiB':>6}{'cells':>10}")
    rows = []
    for millions in options.millions:
        files = pieces(millions)
        save = str(FOLDER / f"counts-{millions}.parquet")
        counts, by_hand = list[dict[str, Any]](), list[dict[str, Any]]()
        for _ in range(TURNS):
            counts.append(alone("counted", files, save))
            by_hand.append(alone("bare", files, counts[-1]["bins"], counts[-1]["batches"]))
        ours = min(counts, key=lambda each: float(each["count"]["wall"] + each["fit"]["wall"]))
        best = min(by_hand, key=lambda each: float(each["wall"]))
        for name, found, cells in (("bare group-by", best, best["cells"]), ("count", ours["count"], ours["cells"])):
            print(
                f"{ours['queries']:>10,}  {name:22}{found['wall']:8.2f}{found['cpu']:8.2f}"
                f"{found.get('MiB', ours['MiB']):6.0f}{cells:10,}"
            )
        print(f"{'':>10}  {'fit':22}{ours['fit']['wall']:8.2f}{ours['fit']['cpu']:8.2f}{ours['MiB']:6.0f}")
        both = {kind: ours["count"][kind] + ours["fit"][kind] for kind in ("wall", "cpu")}
        ratios = [both[kind] / best[kind] for kind in ("wall", "cpu")]
        print(f"{'':>10}  {'(count + fit) / bare':22}{ratios[0]:8.2f}{ratios[1]:8.2f}")
        print(f"{'':>12}bins {ours['bins']}, {ours['batches']} batches; gain {[round(g, 5) for g in ours['gain']]}")
        print("".join(f"{'':>12}{note}\n" for note in ours["notes"]), end="", flush=True)
        rows.append((millions, alone("fitted", save)))
    for millions, found in rows:
        print(
            f"{millions:>9}M  {'fit from counts':22}{found['wall']:8.2f}{found['cpu']:8.2f}{found['MiB']:6.0f}"
            f"{found['cells']:10,}"
        )


if __name__ == "__main__":
    main()
