"""Policy files under fire from a fuzzer that follows the code: ``python -m tests.policies.guided [seconds]``.

Atheris changes bytes, and documents as `fuzzing` does, and keeps what reaches a branch that nothing reached before.
It is not there for every Python; without it nothing is done.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SECONDS = 60


def main() -> None:
    if find_spec("atheris") is None:
        print("atheris is not installed (pip install -e '.[fuzz]'): the fuzzer that follows the code is left out")
        return
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    atheris: Any = __import__("atheris")
    with atheris.instrument_imports(include=["metaverify.policies"]):
        from metaverify.policies.file import PolicyFileError

        from .fuzzing import FILES, judged, mutated_document, policy_or_refusal, resealed

    def one(data: bytes) -> None:
        """The bytes as they are, and with the id that their content has."""
        for text in (data, resealed(data)):
            policy = policy_or_refusal(text)
            if isinstance(policy, PolicyFileError) or text not in FILES.values():
                judged("policy", text, policy, random.Random(1))

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        """Half of the time the document is changed, where there is one, else the bytes."""
        rng = random.Random(seed)
        try:
            document = json.loads(data) if rng.random() < 0.5 else None
            if isinstance(document, dict):
                return mutated_document(rng, document)[:longest]
        except (ValueError, RecursionError):
            pass
        return bytes(atheris.Mutate(data, longest))

    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_bytes(text)
        limits = [f"-max_total_time={seconds}", "-max_len=4096", "-len_control=0", "-timeout=5", "-seed=1"]
        told = ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], *limits, *told, folder], one, custom_mutator=mutated)
        print(f"policy files from atheris, for {seconds} s:", flush=True)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
