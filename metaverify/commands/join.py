"""`metaverify join`."""

from __future__ import annotations

import argparse
import pathlib

from metaverify.output import check_out, print_json, working

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify join decisions.jsonl labels.csv -o seen.parquet"
DETAILS = (
    "Labels are a table (.parquet, .csv, .jsonl) of query_id, the key of the request; tier; correct; and, where\n"
    "answers were picked to be labelled, label_propensity.  A label that is there again counts once, an empty one\n"
    "beside a label not at all.  What is written is a log for --partial."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    parser.add_argument("decisions", help="the decision log of a router (DecisionLog)")
    parser.add_argument("labels", help="which answers were right")
    parser.add_argument("-o", "--out", required=True, help="the log to write: .parquet, .csv, .jsonl (.gz)")


def run(options: argparse.Namespace) -> None:
    """Put labels into a router's decision log."""
    import polars as pl

    from metaverify.simulators.decisions import join_labels, read_decisions, read_labels, single_labels
    from metaverify.simulators.files import write_table
    from metaverify.simulators.log import LogError

    check_out(options.out)
    with working("joining"):
        rows, skipped = read_decisions(options.decisions)
        labels = single_labels(read_labels(options.labels))
        joined = join_labels(rows, labels)
    answers = joined.filter(pl.col("cost").is_not_null()).unique(["query_id", "tier"])
    labelled = int(answers["correct"].is_not_null().sum())
    if not labelled:
        raise LogError(
            "E_LABELS",
            f"{options.labels}: no label belongs to an answer in {options.decisions}; query_id must be the key that a "
            "request was routed with, tier the name in the policy",
        )
    unknown = [name for name in ("context", "reading") if joined[name].is_null().all()]
    write_table(joined.drop(unknown), pathlib.Path(options.out))
    given = labels.filter(pl.col("correct").is_not_null())
    routed = given.filter(*(pl.col(name).is_in(joined[name].unique().implode()) for name in ("query_id", "tier")))
    told = {
        "queries": joined["query_id"].n_unique(),
        "answers": len(answers),
        "labelled": labelled,
        "requests_left_out": rows["query_id"].n_unique() - joined["query_id"].n_unique(),
        "labels_left_out": len(given) - len(routed),
        "labels_not_called": len(routed) - labelled,
        "lines_skipped": skipped,
    }
    if options.json:
        print_json({"out": options.out, **told})
        return
    print(f"{told['queries']:,} queries, {told['answers']:,} answers, {labelled:,} of them labelled")
    reasons = {
        "requests_left_out": "requests left out: a guard had moved them, so nobody knows the chance of their calls",
        "labels_left_out": "labels left out: their requests or tiers are not in the decision log, or were left out",
        "labels_not_called": "labels not needed: their tiers were not called for these requests, as is usual",
        "lines_skipped": "lines skipped: cut short by a crash, or of a request that was",
    }
    for name, why in reasons.items():
        if told[name]:
            print(f"note: {told[name]:,} {why}")
    print(f"wrote {options.out}")
