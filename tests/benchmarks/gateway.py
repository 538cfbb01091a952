"""What the cascade adds to a request: in LiteLLM's proxy, in its SDK, and of that the router alone.

python -m tests.benchmarks.gateway [--requests 400]

Every request is an easy one, that the first tier answers at once: so a tier called directly and the cascade make the
same call, and are timed in turn.  A cascade is one more call of LiteLLM's, around that of the tier; what that costs by
itself is told by a provider that answers at once.  Medians and 90th percentiles, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from metaverify.policies.integrations.models import Model
from tests.policies.integrations.cascades import EASY, write_settings
from tests.policies.integrations.proxies import running_proxy

Ask = Callable[[], Awaitable[object]]


async def timed(asks: Sequence[Ask], requests: int) -> list[list[float]]:
    """Milliseconds of so many requests of each, taken in turn after a tenth as many that do not count."""
    spent: list[list[float]] = [[] for _ in asks]
    for number in range(-requests // 10, requests):
        for times, ask in zip(spent, asks, strict=True):
            began = time.perf_counter()
            await ask()
            if number >= 0:
                times.append(1000.0 * (time.perf_counter() - began))
    return spent


def told(name: str, times: Sequence[float], base: Sequence[float] | None = None) -> str:
    """A row of the table."""
    more = "" if base is None else f"{median(times) - median(base):>+12.2f}"
    return f"{name:<44}{median(times):>9.2f}{quantiles(times, n=10)[-1]:>9.2f}{more}"


async def in_proxy(requests: int) -> list[list[float]]:
    """A tier, and the cascade, by HTTP."""
    import httpx

    from tests.policies.integrations.mocks import prompt

    with TemporaryDirectory() as folder, running_proxy(Path(folder)) as url:
        head = {"Authorization": "Bearer sk-example"}
        async with httpx.AsyncClient(base_url=url, headers=head, timeout=60.0) as client:

            async def ask(model: str) -> None:
                reply = await client.post("/chat/completions", json={"model": model, "messages": prompt(**EASY)})
                reply.raise_for_status()

            return await timed([lambda: ask("small"), lambda: ask("assistant")], requests)


async def in_sdk(requests: int) -> list[list[float]]:
    """A tier, the cascade, a provider that answers at once, and our layer around a call that costs no time."""
    import litellm

    from metaverify.policies.integrations.litellm import load_provider
    from tests.policies.integrations.mocks import PARAMS, Mock, Ready, prompt

    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        path = write_settings(Path(folder))
        path.write_text(path.read_text().replace("every = 0.0", "every = 1.0"))
        provider = load_provider(path)
        litellm.custom_provider_map = [
            {"provider": "mock", "custom_handler": Mock()},
            {"provider": "metaverify", "custom_handler": provider},
            {"provider": "ready", "custom_handler": Ready()},
        ]
        messages = prompt(**EASY)
        answer = await litellm.acompletion(**PARAMS["small"], messages=messages, logprobs=True)
        alone = load_provider(path)
        alone.cascades["support"].models = {"small": _Fixed("small", {}, answer)}  # type: ignore[dict-item]
        given = {"optional_params": {}, "litellm_params": {}, "logging_obj": _Logging()}
        found = await timed(
            [
                lambda: litellm.acompletion(**PARAMS["small"], messages=messages),
                lambda: litellm.acompletion(model="metaverify/support", messages=messages),
                lambda: litellm.acompletion(model="ready/now", messages=messages),
                lambda: alone.acompletion("support", messages, **given),
            ],
            requests,
        )
        for one in (provider, alone):
            _close(one)
        return found


class _Fixed(Model):
    """A model that has its answer ready."""

    def __init__(self, name: str, litellm_params: dict[str, Any], answer: Any) -> None:
        super().__init__(name, litellm_params)
        object.__setattr__(self, "answer", answer)

    async def complete(self, messages: Sequence[Any], **params: Any) -> Any:
        return self.answer.model_copy(deep=True)  # type: ignore[attr-defined]


class _Logging:
    litellm_call_id = "request-17"


def _close(provider: Any) -> None:
    for cascade in provider.cascades.values():
        cascade.log.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    requests = parser.parse_args().requests
    direct, whole = asyncio.run(in_proxy(requests))
    print(f"{'milliseconds a request':<44}{'median':>9}{'90 %':>9}{'added':>12}")
    print(told("proxy: the tier directly", direct))
    print(told("proxy: the cascade", whole, direct))
    direct, whole, ready, alone = asyncio.run(in_sdk(requests))
    print(told("SDK: the tier directly", direct))
    print(told("SDK: the cascade", whole, direct))
    print(told("SDK: a provider that answers at once", ready))
    print(told("our layer around a call that costs no time", alone))


if __name__ == "__main__":
    main()
