"""`metaverify inspect`."""

from __future__ import annotations

import argparse

from metaverify.inputs import read, read_columns
from metaverify.options import add_log
from metaverify.output import print_json, working

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify inspect log.parquet"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_log(parser)


def run(options: argparse.Namespace) -> None:
    """What is in a log, and what is wrong with it."""
    from metaverify.simulators.inspection import inspect_log, render

    log = read(options)
    with working("inspecting"):
        report = inspect_log(log)
    columns = read_columns(options)
    if options.json:
        print_json({**report.to_json(), "ignored_columns": list(columns.ignored)})
        return
    print(render(report), end="")
    if columns.ignored:
        print(f"\ncolumns not used: {', '.join(columns.ignored)}")
