"""`metaverify report`."""

from __future__ import annotations

import argparse

from metaverify.inputs import read_policy
from metaverify.options import add_key, add_policy
from metaverify.output import check_out, print_json

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify report policy.json --comparison comparison.json -o report.html"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_policy(parser)
    parser.add_argument("--comparison", metavar="FILE", help="what `metaverify compare` wrote, to be shown beside it")
    parser.add_argument("-o", "--out", default="report.html", help="the page (default: %(default)s)")
    add_key(parser)


def run(options: argparse.Namespace) -> None:
    """A policy as one web page: the dial, its trees, decisions by hand."""
    from metaverify.page import load_comparison, report_page
    from metaverify.policies.storage import write_atomically

    check_out(options.out)
    policy = read_policy(options)
    comparison = None if options.comparison is None else load_comparison(options.comparison)
    page = report_page(policy, comparison).encode()
    write_atomically(options.out, page)
    if options.json:
        print_json({"out": options.out, "bytes": len(page)})
    else:
        print(f"wrote {options.out}: {len(page):,} bytes, complete in itself; open it in a browser")
