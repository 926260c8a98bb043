"""The way into a cluster, as a Service of Kubernetes is: any worker that said a moment ago that it takes requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from foretaste.jobs.load import FAILED, NOTHING, Answer, Call, Pool, call

PROBE = "/-/healthz"
"""What the operator asks of a worker before it sends requests there."""
REFUSED, CUT = "refused", "cut"
"""How a try ends without an answer: nobody listened, so that nothing was sent; or it was sent, and nothing came."""
TRIES, AGAIN_SECONDS, TRY_SECONDS = 2, 0.05, 10.0
AGAIN = frozenset({500, 502, 503, 504})
"""Statuses after which a client asks once more, at another worker, unless it was told when to come again."""


class WayIn:
    """Requests to workers that come and go; each is tried once more where nothing came of it, as our client does."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        *,
        port: int,
        probe_seconds: float,
        closed: Callable[[], None],
        seed: int = 0,
    ) -> None:
        """`addresses` gives those of the workers that there are; `closed` is told when nobody asks any more."""
        self.num_nobody = 0  # tries for which no worker was ready
        self._addresses, self._port, self._probe_seconds, self._closed = addresses, port, probe_seconds, closed
        self._rng = np.random.default_rng(seed)
        self._pools: dict[str, Pool] = {}
        self._ready: set[str] = set()
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._notice()
        await asyncio.sleep(2 * self._probe_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed()
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)  # connections close in the next turn of the loop

    async def ask(self, one: Call) -> Answer:
        """Send a request to a worker that is ready, drawn at random; the answer tells how earlier tries ended."""
        self._notice()
        before: tuple[str, ...] = ()
        where: str | None = None
        for left in reversed(range(TRIES)):
            where = self._draw(other_than=where)
            answer = await self._asked(where, one)
            failed = outcome(answer)
            if failed is None or left == 0:
                return replace(answer, before=before)
            before = (*before, failed)
            await asyncio.sleep(AGAIN_SECONDS)
        raise AssertionError("unreachable")

    def _draw(self, *, other_than: str | None) -> str | None:
        ready = sorted(self._ready - {other_than}) or sorted(self._ready)
        return ready[int(self._rng.integers(len(ready)))] if ready else None

    async def _asked(self, where: str | None, one: Call) -> Answer:
        if where is None:
            self.num_nobody += 1
            return replace(NOTHING, sent=False)
        return await self._pools[where].ask(one)

    def _notice(self) -> None:
        """Look after every worker that there is."""
        for address in self._addresses():
            if address not in self._looking:
                self._pools[address] = Pool(address, self._port, timeout=TRY_SECONDS)
                self._looking[address] = asyncio.create_task(self._look(address))

    async def _look(self, address: str) -> None:
        probes = Pool(address, self._port, timeout=max(1.0, self._probe_seconds))
        probe = call("probe", "GET", PROBE, b"", host=f"{address}:{self._port}")
        try:
            while True:
                well = (await probes.ask(probe)).status == 200
                (self._ready.add if well else self._ready.discard)(address)
                await asyncio.sleep(self._probe_seconds)
        finally:
            probes.close()


def outcome(answer: Answer) -> str | None:
    """How a try ended after which there may be another; None where the answer stands."""
    if answer.status == FAILED:
        return CUT if answer.sent else REFUSED
    return str(answer.status) if answer.status in AGAIN and not answer.retry_after else None
