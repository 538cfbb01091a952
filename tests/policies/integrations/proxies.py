"""LiteLLM's real proxy, on this machine, with the tiers of `mocks` and the cascade of `cascades`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .cascades import write_settings

ROOT = Path(__file__).resolve().parents[3]

CONFIG = """
model_list:
  - model_name: assistant
    litellm_params: {model: metaverify/support}
  - model_name: small
    litellm_params: {model: mock/small, input_cost_per_token: 0.0, output_cost_per_token: 0.0001}
litellm_settings:
  num_retries: 0
  custom_provider_map:
    - {provider: metaverify, custom_handler: handlers.provider}
    - {provider: mock, custom_handler: handlers.mock}
general_settings:
  master_key: sk-example
  custom_auth: handlers.who
"""

HANDLERS = f"""
import socket
import sys
from pathlib import Path

sys.path.insert(0, {str(ROOT)!r})
from metaverify.policies.integrations.litellm import load_provider
from litellm.proxy._types import UserAPIKeyAuth
from tests.policies.integrations.mocks import mock

connect = socket.socket.connect


def guarded(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        Path(__file__).with_name("denied.txt").write_text(str(address))
        raise OSError("denied")
    return connect(self, address)


socket.socket.connect = guarded
provider = load_provider(Path(__file__).with_name("cascades.toml"))


async def who(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, key_alias=api_key.removeprefix("sk-"))
"""


@contextmanager
def running_proxy(folder: Path, more: str = "") -> Iterator[str]:
    """The address of a proxy that keeps its files in this folder, and is ended afterwards."""
    write_settings(folder, more)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "handlers.py").write_text(HANDLERS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(Path(sys.executable).with_name("litellm")), "--config", "config.yaml", "--host", "127.0.0.1"]
    offline = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    with (folder / "proxy.log").open("wb") as said:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, env=offline, stdout=said, stderr=said)
    try:
        _await(f"http://127.0.0.1:{port}/health/liveliness", process, folder / "proxy.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-3000:])
