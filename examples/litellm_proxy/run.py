"""Starts LiteLLM's proxy on this machine, asks it questions with OpenAI's client, shows what they cost and why, and
stops it.  No network and no key is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai

HERE = Path(__file__).parent
QUESTIONS = ("What is 4 + 357?", "What is 7 + 921?", "What is 6 * 214?", "What is 9 * 305?", "What is 481 * 7302?")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def start(port: int) -> subprocess.Popen[bytes]:
    """The proxy, once it answers; what it says goes to proxy.log."""
    command = [str(Path(sys.executable).with_name("litellm")), "--config", "config.yaml", "--host", "127.0.0.1"]
    with (HERE / "proxy.log").open("wb") as said:
        offline = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
        proxy = subprocess.Popen([*command, "--port", str(port)], cwd=HERE, stdout=said, stderr=said, env=offline)
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=1):
                return proxy
        except OSError:
            if proxy.poll() is not None:
                break
            time.sleep(0.1)
    stop(proxy)
    raise SystemExit(f"the proxy did not start; see {HERE / 'proxy.log'}")


def stop(proxy: subprocess.Popen[bytes]) -> None:
    """End the proxy and wait for it."""
    proxy.terminate()
    try:
        proxy.wait(15)
    except subprocess.TimeoutExpired:
        proxy.kill()


def told(trail: list[dict[str, Any]]) -> str:
    """A trail in one line, such as "small .34 > medium .97 > medium"."""
    words = []
    for step in trail:
        sure = "".join(f" {value:.2f}".replace("0.", ".") for value in step["confidence"].values() if value is not None)
        name = step.get("reading") or step.get("tier", "")
        why = f" ({step['reason']})" if step["reason"] else ""
        words.append(f"accept {name}" if step["action"] == "accept" else f"{name}{sure}{why}")
    return " > ".join(words)


def ask(client: openai.OpenAI, question: str, budget: float | None = None) -> tuple[str, float, str]:
    """The answer, what it cost in thousandths of a dollar, and how it was come to."""
    metadata = {} if budget is None else {"metadata": {"budget": budget}}
    raw = client.chat.completions.with_raw_response.create(
        model="assistant", messages=[{"role": "user", "content": question}], extra_body=metadata
    )
    response = raw.parse()
    cost = 1000 * float(raw.headers["x-litellm-response-cost"])
    return response.choices[0].message.content or "", cost, told(response.metaverify["trail"])


def main() -> None:
    """All of it."""
    port = free_port()
    proxy = start(port)
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-example", max_retries=0)
        print(f"{'question':<22}{'answer':>9}{'cost':>8}   trail (cost in thousandths of a dollar)")
        for question in QUESTIONS:
            answer, cost, trail = ask(client, question)
            print(f"{question:<22}{answer:>9}{cost:>8.3f}   {trail}")
        answer, cost, trail = ask(client, QUESTIONS[-1], budget=0.1)
        print(f"\nwith metadata.budget = 0.1\n{QUESTIONS[-1]:<22}{answer:>9}{cost:>8.3f}   {trail}")
        try:
            ask(client, QUESTIONS[0], budget=0.001)
        except openai.BadRequestError as error:
            print(f"\nwith metadata.budget = 0.001\n{error.status_code}: {error.body['message']}")  # type: ignore[index]
        stream = client.chat.completions.create(
            model="assistant", messages=[{"role": "user", "content": QUESTIONS[-1]}], stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        print(f"\nas a stream: {' '.join(filter(None, pieces))}")
    finally:
        stop(proxy)


if __name__ == "__main__":
    main()
