"""`metaverify promote`."""

from __future__ import annotations

import argparse
import time

from metaverify.inputs import signing_key
from metaverify.options import add_key
from metaverify.output import check_out, print_json

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify promote candidate.json policy.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("candidate", help="the policy file that is to be used")
    parser.add_argument("live", help="the policy file in use; it is kept in a folder beside it")
    add_key(parser, "both files are signed with this key")


def run(options: argparse.Namespace) -> None:
    """Put a candidate in the place of the policy in use."""
    from metaverify.policies.editions import promote

    key = signing_key(options)
    check_out(options.live)
    done = promote(options.candidate, options.live, key=key, now=time.time())
    if options.json:
        print_json({"live": options.live, **done.to_json()})
        return
    print(done.text(options.live))
