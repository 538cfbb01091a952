"""`metaverify show`."""

from __future__ import annotations

import argparse
import sys

from metaverify.inputs import in_use, read_policy
from metaverify.options import add_in_use, add_policy

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify show policy.json --format mermaid"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_policy(parser)
    parser.add_argument("--format", choices=("text", "mermaid"), default="text", help="default: %(default)s")
    add_in_use(parser)


def run(options: argparse.Namespace) -> None:
    """Draw a policy."""
    from metaverify.policies.drawing import draw_mermaid, draw_text
    from metaverify.policies.file import dump_policy

    policy = in_use(read_policy(options), options)
    if options.json:
        sys.stdout.write(dump_policy(policy))
    else:
        if options.without and options.format == "text":
            print(f"without {options.without}; what is expected is so while all tiers are up")
        print((draw_mermaid if options.format == "mermaid" else draw_text)(policy), end="")
