"""`metaverify compare`."""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

from metaverify.arguments import parse_budgets, parse_names
from metaverify.inputs import read
from metaverify.options import add_log, add_seed, whole
from metaverify.output import check_out, json_text, print_warnings, progress

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify compare log.parquet --methods default,thresholds --resume done -o comparison.json --plots plots"
DETAILS = (
    "For each fold a method learns and sets its dial on the other folds; then it routes that fold's\n"
    "queries at every budget. The headline is gain: points of quality above mixing fixed tiers at random,\n"
    "at the same budget. The last lines say who wins and whether that is clear.\n"
    "\n"
    "A package can bring methods of its own, as entry points of the group metaverify.methods: a learner,\n"
    "a class of learners, or a callable from a log (and budget=, if it takes one) to a policy."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    add_log(parser)
    parser.add_argument(
        "--methods",
        help="by name, separated by commas, or all (default: the usual ones, see --list-methods)",
    )
    parser.add_argument("--list-methods", action=_Methods, nargs=0, help="print every method's name and exit")
    parser.add_argument(
        "--budgets",
        help="mean costs per query, separated by commas (default: ten from the cheapest tier to the dearest)",
    )
    parser.add_argument(
        "--readings", help="readings to use, by name (default: what each method usually does with all of them)"
    )
    parser.add_argument("--folds", type=whole("folds", 2), default=5, help="of the log's groups (default: %(default)s)")
    parser.add_argument(
        "--repeats",
        type=whole("repeats", 1),
        default=1,
        help="how often the log is divided into folds, each time differently (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", metavar="DIR", help="keep what is done in this folder, and do not do again what it has"
    )
    parser.add_argument("-o", "--out", help="write the comparison as JSON")
    parser.add_argument("--plots", metavar="DIR", help="write figures to this folder, PNG and SVG")
    parser.add_argument(
        "--no-seconds",
        action="store_true",
        help="leave run times out of the JSON, so that two runs give the same bytes",
    )
    parser.add_argument("--jobs", type=whole("jobs", 1), help="processes (default: one a core)")
    add_seed(parser)


class _Methods(argparse.Action):
    """Prints the methods, the usual ones marked, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from metaverify.fitting.methods import LABELS, USUAL, known_methods

        names = known_methods()
        width = max(map(len, names))
        for name in names:
            print(f"{name.ljust(width)} {'*' if name in USUAL else ' '} {LABELS.get(name, 'of another package')}")
        print("\n* the usual ones; AutoMix's maximise quality under the budget, or by IBC its own objective")
        parser.exit()


def run(options: argparse.Namespace) -> None:
    """Methods side by side on queries that none of them learnt from."""
    from joblib import cpu_count, parallel_config

    from metaverify.comparison import comparison_text
    from metaverify.fitting.compare import compare
    from metaverify.fitting.methods import known_methods
    from metaverify.policies.storage import write_atomically
    from metaverify.report import peak_memory

    start = time.perf_counter()
    check_out(options.out)
    if options.plots is not None:
        pathlib.Path(options.plots).mkdir(parents=True, exist_ok=True)
    log = read(options)
    if (readings := parse_names(options.readings)) is not None:
        log = log.with_readings(readings)
    resume, names = options.resume, parse_names(options.methods)
    try:
        with progress() as tell, parallel_config(n_jobs=options.jobs or cpu_count()):
            found = compare(
                log,
                known_methods() if names == ["all"] else names,
                budgets=parse_budgets(options.budgets),
                folds=options.folds,
                repeats=options.repeats,
                seed=options.seed,
                resume=None if resume is None else pathlib.Path(resume),
                progress=tell,
            )
    except KeyboardInterrupt:
        if resume is None:
            raise
        raise ValueError(f"interrupted; the same command goes on where it was, with what is in {resume}") from None
    told = found.to_json(seconds=not options.no_seconds)
    if options.out is not None:
        write_atomically(options.out, (json_text(told) + "\n").encode())
    if options.plots is not None:
        from metaverify.figures import write_figures

        write_figures(found, options.plots)
    if options.json:
        print(json_text(told))
        return
    print(comparison_text(found), end="")
    print_warnings(found.inspection.warnings)
    wrote = [text for text in (options.out, options.plots) if text is not None]
    print(f"\nwrote {' and '.join(wrote)}" if wrote else "\nno file was written; -o comparison.json writes one")
    peak = peak_memory()
    memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB over all processes"
    print(f"metaverify: {time.perf_counter() - start:.0f} s{memory}", file=sys.stderr)
