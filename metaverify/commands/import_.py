"""`metaverify import`: other formats made into a log."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from metaverify.arguments import parse_paths
from metaverify.output import check_out, print_json, progress

if TYPE_CHECKING:
    from metaverify.simulators.importers.importing import Imported

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = (
    "metaverify import litellm calls.jsonl --map confidence=metadata.verifier.p --map correct=metadata.graded "
    "-o log.parquet\n"
    "  metaverify import wide mine.csv --map query_id=id --map correct_small=small_ok --map conf_small=small_score "
    "--map cost_small=small_usd --map correct_large=large_ok --map cost_large=large_usd --scale 100 -o log.parquet"
)

DETAILS = (
    "A table of your own is `wide` where it has a row a query and `long` where it has a row an answer; --map says\n"
    "what its columns are called there, one --map for each column of the log (docs/importing.md)."
)
FORMATS = "automix, decisions, inspect-ai, langfuse, litellm, lm-eval, long, otel, routerbench, wide"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    parser.add_argument(
        "format", metavar="FORMAT", help=f"{FORMATS}, or one that a package brings (entry points metaverify.importers)"
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or TIER=FILE where it does not name its tier")
    parser.add_argument("-o", "--out", required=True, help="the log to write: .parquet, .csv, .jsonl (.gz)")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="COLUMN=PATH",
        help="where in a record a column of the log stands, keys joined by dots; a number stands for itself; "
        "a name that is no column is kept as a context",
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="PATH=VALUE", help="use only records that have this value there"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="divide confidences by this (100 for percent)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--whole",
        action="store_const",
        const=True,
        help="leave out queries that some tier did not answer (default of benchmarks)",
    )
    kept.add_argument(
        "--partial",
        dest="whole",
        action="store_const",
        const=False,
        help="keep them, for a partial log (default of traffic and of plain tables)",
    )


def run(options: argparse.Namespace) -> None:
    """Make a log of other formats."""
    from metaverify.simulators.importers.importing import import_log

    check_out(options.out)
    with progress() as tell:
        found = import_log(
            options.format,
            options.files,
            options.out,
            mapping=parse_paths("--map", options.map),
            where=parse_paths("--where", options.where),
            scale=options.scale,
            whole=options.whole,
            progress=tell,
        )
    if options.json:
        print_json(found.to_json())
    else:
        print("\n".join(_lines(found)))


def _lines(found: Imported) -> list[str]:
    """What became of the files, in sentences."""
    from metaverify.simulators.importers.tally import SHOWN

    files = "one file" if found.files == 1 else f"{found.files:,} files"
    lines = [f"wrote {found.out}: {found.queries:,} queries, from {found.records:,} records in {files}", ""]
    width = max(map(len, found.answers))
    for tier, (count, labelled) in found.answers.items():
        known = "all labelled" if labelled == count else f"{labelled:,} labelled"
        lines.append(f"  {tier:<{width}}  {count:,} answers, {known}")
    lines += [f"  {name}  without answers: --signal {name}=TIER says whose it needs" for name in found.signals]
    if found.unpriced:
        lines.append(
            f"\nno prices of {', '.join(found.unpriced)}: give fit --cost {found.unpriced[0]}=PRICE, and so on"
        )
    if found.partial:
        kept = "are left out; --partial keeps them" if found.whole else "are kept; fit --partial reads such a log"
        lines.append(f"\n{found.partial:,} queries that some tier did not answer, or not with a label, {kept}")
    unlabelled = [tier for tier, (_, labelled) in found.answers.items() if not labelled]
    if unlabelled:
        others = ",".join([*(tier for tier in found.answers if tier not in unlabelled), *found.signals])
        lines.append(f"\nno labels of {', '.join(unlabelled)}: leave out what is no tier, fit --tiers {others}")
    if found.unmet:
        lines.append(f"\nno record has anything there: {', '.join(f'--map {given}' for given in found.unmet)}")
    if found.texts:
        lines.append(f"\ncolumns without a number, left out: {', '.join(found.texts)}")
    if found.ignored:
        lines.append(f"\ncolumns not used: {', '.join(found.ignored)}")
    if found.passed_over:
        lines.append(f"\n{found.passed_over:,} records are not as --where wants them")
    if found.faults:
        lines.append("\nnot used:")
        for fault in found.faults:
            more = ", …" if fault.count > len(fault.first) == SHOWN else ""
            times = "once" if fault.count == 1 else f"{fault.count:,} times"
            lines.append(f"  {fault.why}, {times}: {', '.join(fault.first)}{more}")
    return lines
