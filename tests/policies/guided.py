"""Policy files under fire from a fuzzer that follows the code: ``python -m tests.policies.guided [seconds]``.

Needs atheris (``pip install atheris``), which is not there for every Python; without it nothing is done.
"""

from __future__ import annotations

import random
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SECONDS = 60


def main() -> None:
    if find_spec("atheris") is None:
        print("atheris is not installed: the fuzzer that follows the code is left out")
        return
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    atheris: Any = __import__("atheris")
    with atheris.instrument_imports(include=["metaverify.policies"]):
        from metaverify.policies.file import PolicyFileError

        from .fuzzing import FILES, judged, policy_or_refusal, resealed

    def one(data: bytes) -> None:
        """The bytes as they are, and with the id that their content has."""
        for text in (data, resealed(data)):
            policy = policy_or_refusal(text)
            if isinstance(policy, PolicyFileError) or text not in FILES.values():
                judged("policy", text, policy, random.Random(1))

    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_bytes(text)
        limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=5", "-seed=1"]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
