"""How fast `import_log` reads, and how much memory it takes: LiteLLM's payloads of many calls, in one file.

    python -m tests.benchmarks.importing [--rows 5000000] [--folder FOLDER]

The file is written first (about 0.9 kB a call) and deleted afterwards; each size is imported in a process of its own,
whose largest resident set is printed, beside that of a process which only imports the modules.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

PAYLOAD = {
    "id": "chatcmpl-%s",
    "trace_id": "%s",
    "call_type": "acompletion",
    "stream": False,
    "response_cost": 0.0,
    "status": "success",
    "custom_llm_provider": "openai",
    "total_tokens": 30,
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "startTime": 1795392888.881340,
    "endTime": 1795392889.881340,
    "model_map_information": {"model_map_key": "gpt-4o-mini", "model_map_value": None},
    "model": "openai/gpt-4o-mini",
    "model_group": "small",
    "api_base": "https://api.openai.com",
    "cache_hit": False,
    "request_tags": [],
    "messages": [{"role": "user", "content": "What is the capital of the largest country that has none of its own?"}],
    "response": {"choices": [{"message": {"role": "assistant", "content": "There is no such country."}}]},
    "metadata": {"user_api_key_hash": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"},
}
MAPPING = {
    "confidence": "metadata.spend_logs_metadata.verifier.p",
    "correct": "metadata.spend_logs_metadata.graded",
    "task": "metadata.spend_logs_metadata.task",
}
IMPORT = """
import json, resource, sys, time
from metaverify.simulators.importers.importing import import_log
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, worked = time.perf_counter(), time.process_time()
found = {"queries": 0}
if len(sys.argv) > 1:
    found = import_log("litellm", [sys.argv[1]], sys.argv[2], mapping=json.loads(sys.argv[3])).to_json()
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "worked": time.process_time() - worked,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "before": before / 1024,
    "queries": found["queries"],
    "faults": found.get("faults", []),
}))
"""


def write(path: Path, rows: int) -> None:
    """So many calls, two of each trace, in an order that has nothing to do with their ids; one in a million is torn."""
    draw = random.Random(1)
    traces: list[str] = []
    with path.open("w") as file:
        for at in range(rows):
            if at % 2 == 0:
                traces.append(f"{draw.getrandbits(128):032x}")
            tier = ("small", "large")[at % 2]
            payload = PAYLOAD | {"id": f"chatcmpl-{at:012}", "trace_id": traces[-1], "model_group": tier}
            payload["response_cost"] = 0.0001 * (1 + 30 * (at % 2))
            told = {"verifier": {"p": round(draw.random(), 4)}, "graded": draw.random() < 0.7, "task": f"task{at % 7}"}
            told["task"] = f"task{at // 2 % 7}"
            payload["metadata"] = PAYLOAD["metadata"] | {"spend_logs_metadata": told}  # type: ignore[operator]
            line = json.dumps(payload)
            file.write((line[:200] if at % 1_000_000 == 999_999 else line) + "\n")
            del traces[:-1]


def measured(*arguments: str) -> dict[str, float]:
    """Time and memory of one import, in a process of its own."""
    ran = subprocess.run([sys.executable, "-c", IMPORT, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout))


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", default=None, help="where the file is written (default: for temporary files)")
    options = parser.parse_args()
    alone = measured()["peak"]
    print(f"modules alone: {alone:.0f} MiB")
    print(
        f"{'calls':>10} {'file, MB':>9} {'seconds':>8} {'CPU':>7} {'calls/CPU s':>11} {'peak, MiB':>10} {'queries':>10}"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for rows in (options.rows // 100, options.rows // 10, options.rows):
            path = Path(name) / "calls.jsonl"
            write(path, rows)
            size = path.stat().st_size / 1e6
            found = measured(str(path), str(Path(name) / "log.parquet"), json.dumps(MAPPING))
            print(
                f"{rows:10,} {size:9,.0f} {found['seconds']:8.1f} {found['worked']:7.1f} "
                f"{rows / found['worked']:11,.0f} {found['peak']:10.0f} {found['queries']:10,}",
                flush=True,
            )
            print(f"           not used: {found['faults']}")


if __name__ == "__main__":
    main()
