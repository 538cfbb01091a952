"""`metaverify rollback`."""

from __future__ import annotations

import argparse

from metaverify.inputs import signing_key
from metaverify.options import add_key
from metaverify.output import print_json

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify rollback policy.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("live", help="the policy file in use; it is kept, as withdrawn")
    parser.add_argument("--to", help="the id or the serial of an edition before (default: the last one not withdrawn)")
    add_key(parser, "the files are signed with this key")


def run(options: argparse.Namespace) -> None:
    """Put an edition before back in its place."""
    from metaverify.policies.editions import rollback

    done = rollback(options.live, options.to, key=signing_key(options))
    if options.json:
        print_json({"live": options.live, **done.to_json()})
        return
    print(done.text(options.live))
