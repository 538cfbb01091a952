"""What the cascade adds to a request: in LiteLLM's proxy, in its SDK, and of that the router alone.

python -m tests.benchmarks.gateway [--requests 400]

Every request is an easy one, that the first tier answers at once: so a tier called directly and the cascade make the
same call, and are timed in turn.  A cascade is one more call of LiteLLM's, around that of the tier; what that costs by
itself is told by a provider that only forwards.  The 10th percentile is what a machine without other work takes; CPU is
the median processor time of the thread that serves.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from metaverify.policies.integrations.models import Model
from tests.policies.integrations.cascades import EASY, write_settings
from tests.policies.integrations.proxies import running_proxy

Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Times:
    """Milliseconds of each request: on the clock, and of this thread's processor time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


async def timed(asks: Sequence[Ask], requests: int) -> list[Times]:
    """So many requests of each, in turn, after a tenth as many that do not count."""
    found = [Times() for _ in asks]
    for number in range(-requests // 10, requests):
        for times, ask in zip(found, asks, strict=True):
            clock, processor = time.perf_counter(), time.thread_time()
            await ask()
            if number >= 0:
                times.processor.append(1000.0 * (time.thread_time() - processor))
                times.clock.append(1000.0 * (time.perf_counter() - clock))
    return found


def told(name: str, times: Times, base: Times | None = None, processor: bool = True) -> str:
    """A row of the table: medians, the 10th percentile, and what was added to the medians and the percentile."""
    columns = [
        (median(times.clock), base and median(base.clock)),
        (quantiles(times.clock, n=10)[0], base and quantiles(base.clock, n=10)[0]),
    ]
    if processor:
        columns.append((median(times.processor), base and median(base.processor)))
    cells = (f"{value:>9.2f}{'' if less is None else f'{value - less:+.2f}':>8}" for value, less in columns)
    return f"{name:<46}{''.join(cells)}"


async def in_proxy(requests: int) -> list[Times]:
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


async def in_sdk(requests: int) -> list[Times]:
    """A tier, a provider that only forwards to it, the cascade, and our layer around a call that takes no time."""
    import litellm

    from metaverify.policies.integrations.litellm import load_provider
    from tests.policies.integrations.mocks import PARAMS, Forwarding, Mock, prompt

    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        path = write_settings(Path(folder))
        path.write_text(path.read_text().replace("every = 0.0", "every = 1.0"))
        provider = load_provider(path)
        litellm.custom_provider_map = [
            {"provider": "mock", "custom_handler": Mock()},
            {"provider": "metaverify", "custom_handler": provider},
            {"provider": "forward", "custom_handler": Forwarding()},
        ]
        messages = prompt(**EASY)
        answer = await litellm.acompletion(**PARAMS["small"], messages=messages, logprobs=True)
        alone = load_provider(path)
        alone.cascades["support"].models = {"small": _Fixed("small", {}, answer)}  # type: ignore[dict-item]
        given = {"optional_params": {}, "litellm_params": {}, "logging_obj": _Logging()}
        found = await timed(
            [
                lambda: litellm.acompletion(**PARAMS["small"], messages=messages),
                lambda: litellm.acompletion(model="forward/small", messages=messages),
                lambda: litellm.acompletion(model="metaverify/support", messages=messages),
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
    head = (f"{name:>9}{'added':>8}" for name in ("median", "10 %", "CPU"))
    print(f"{'milliseconds a request':<46}{''.join(head)}")
    direct, whole = asyncio.run(in_proxy(requests))
    print(told("proxy: the tier directly", direct, processor=False))
    print(told("proxy: the cascade", whole, direct, processor=False))
    direct, forward, whole, alone = asyncio.run(in_sdk(requests))
    print(told("SDK: the tier directly", direct))
    print(told("SDK: a provider that only forwards to the tier", forward, direct))
    print(told("SDK: the cascade", whole, direct))
    print(told("our layer around a call that takes no time", alone))


if __name__ == "__main__":
    main()
