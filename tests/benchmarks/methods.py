"""Meta-verifiers side by side on real logs, as `metaverify compare` has them: the tables of docs/comparison.md.

python -m tests.benchmarks.methods FOLDER [--logs a;b] [--methods a,b] [--resume .methods] [-o docs/comparison.md]

Every log is compared twice: bare, with the first reading of each tier and no context, so that all methods see the
same; and whole, with all readings and the data set that a query comes from, where a log has them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count, parallel_config

from metaverify import compare, read_log
from metaverify.comparison import score_table, verdict
from metaverify.fitting.comparison import Comparison
from metaverify.policies.storage import write_atomically
from metaverify.report import signed, table
from metaverify.simulators.log import ReplayLog
from tests.benchmarks.quality import TASKS, bare

PAGE = """# Meta-verifiers side by side

Printed by `python -m tests.benchmarks.methods FOLDER -o docs/comparison.md`.
Figures are points of quality on queries that a method did not learn from, above mixing fixed tiers at random at exactly
the same budget, in the mean over ten budgets (gain), with 90 % intervals of a paired cluster bootstrap; `metaverify
compare` prints the same of your log, and says what each column is.
*bare* is the first reading of each tier and no context, the same for all methods; *whole* is all readings and the data
set of each query, which `default` may use and most rules cannot.

```text
{found}
```
"""
EXTRA = {"plaut, 2 tiers": ("plaut_mcqa12", ("gpt_3p5_turbo", "gpt_4_turbo"))}
LOGS = {
    **EXTRA,
    **{
        name: (task.file, task.tiers)
        for name, task in TASKS.items()
        if task.tiers is not None or name in ("anlp_automix2", "mmlupro_llama", "frugalml_s2t", "frugalml_sa_zh")
    },
    "yuuxii, 4 tiers": ("yuuxii_qa12", ("gemma_2b", "llama3_8b", "gemma2_27b", "qwen2_72b")),
}


@dataclass(frozen=True)
class Case:
    """A log, bare or whole."""

    name: str
    whole: bool

    @property
    def title(self) -> str:
        """The log's name, and how much of it is seen."""
        return f"{self.name}, {'whole' if self.whole else 'bare'}"

    def log(self, folder: Path) -> ReplayLog:
        """What is compared on."""
        file, tiers = LOGS[self.name]
        log = read_log(folder / f"{file}.parquet", tiers=tiers, context=("dataset",))
        return log if self.whole else bare(log)


def summary(found: dict[Case, Comparison], whole: bool) -> str:
    """Gains by method and log, and their mean."""
    cases = [case for case in found if case.whole == whole]
    gains = {case: {m.name: m.gain.mean for m in found[case].methods} for case in cases}
    names = {name for case in cases for name in gains[case]}
    means = {name: sum(gains[case].get(name, 0.0) for case in cases) / len(cases) for name in names}
    numbers = {case: str(at) for at, case in enumerate(cases, start=1)}
    rows = [
        [name, signed(means[name]), *(signed(gains[case][name]) if name in gains[case] else "" for case in cases)]
        for name in sorted(names, key=lambda name: -means[name])
    ]
    legend = ", ".join(f"{numbers[case]} {case.name}" for case in cases)
    kind = "whole" if whole else "bare"
    return f"{table([f'gain, {kind}', 'mean', *numbers.values()], rows)}\n{legend}"


def main() -> None:
    """Compare on every log, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--logs", help="separated by semicolons; default: all")
    parser.add_argument("--methods", help="separated by commas; default: the usual ones")
    parser.add_argument("--resume", type=Path, default=Path(".methods"))
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    names = options.logs.split(";") if options.logs else list(LOGS)
    found: dict[Case, Comparison] = {}
    for case in [Case(name, whole) for whole in (False, True) for name in names]:
        print(case.title, file=sys.stderr, flush=True)
        methods = options.methods.split(",") if options.methods else None
        with parallel_config(n_jobs=cpu_count()):
            found[case] = compare(case.log(options.folder), methods, resume=options.resume)
    parts = [summary(found, False), summary(found, True)]
    parts += [
        "\n".join([case.title, "", score_table(each), "", *verdict(each.to_json())]) for case, each in found.items()
    ]
    text = "\n\n\n".join(parts)
    if options.out is None:
        print(text)
    else:
        write_atomically(options.out, PAGE.format(found=text).encode())


if __name__ == "__main__":
    main()
