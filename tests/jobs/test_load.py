"""The load generator against a server whose times are known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from foretaste.jobs.load import COMES_AGAIN_SECONDS, FAILED, Call, Sent, call, closed_loop, open_loop

Handler = Callable[[bytes], Awaitable[bytes]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SHED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                answer = await handle(await reader.readexactly(size))
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield int(running.sockets[0].getsockname()[1])


def calls(*bodies: str) -> list[Call]:
    return [call(body, "POST", "/v1/x", body.encode(), host="test", headers=[("X-API-Key", "k")]) for body in bodies]


def loaded(handle: Handler, *, clients: int = 0, per_second: float = 0.0, seconds: float = 0.5) -> Sent:
    async def run() -> Sent:
        async with server(handle) as port:
            if clients:
                return await closed_loop(calls("a", "b"), host="127.0.0.1", port=port, clients=clients, seconds=seconds)
            return await open_loop(
                calls("a", "b"),
                host="127.0.0.1",
                port=port,
                per_second=per_second,
                seconds=seconds,
                seed=0,
                timeout=2.0,
            )

    return asyncio.run(run())


async def after_20_ms(body: bytes) -> bytes:
    await asyncio.sleep(0.02)
    return OK


def test_clients_of_a_closed_loop_wait_for_their_answer() -> None:
    found = loaded(after_20_ms, clients=4)
    assert found.good.all()
    assert (found.took_R >= 0.02).all()
    assert len(found) <= 4 * 0.5 / 0.02 + 4
    assert abs(len(found.of("a")) - len(found.of("b"))) <= 4


def test_an_open_loop_charges_a_stall_to_all_who_were_due_meanwhile() -> None:
    first = True

    async def stalls_once(body: bytes) -> bytes:
        nonlocal first
        if first:
            first = False
            import time

            time.sleep(0.3)  # the server's only thread: nobody is answered
        return OK

    found = loaded(stalls_once, per_second=100.0)
    late = found.took_R > 0.1
    assert late.sum() >= 10
    assert found.late_ms > 0.0
    assert abs(len(found) - 50) < 30


def test_what_is_shed_and_what_gets_no_answer_is_counted_and_is_not_good() -> None:
    turn = iter([OK, b"", OK, SHED] * 10_000)

    async def in_turn(body: bytes) -> bytes:
        await asyncio.sleep(0.005)
        return next(turn)

    found = loaded(in_turn, clients=1)
    statuses = found.figures()["statuses"]
    assert isinstance(statuses, dict)
    assert {"200", "429", str(FAILED)} == statuses.keys()
    assert int(found.good.sum()) == statuses["200"]
    assert (found.hinted_R == (found.status_R == 429)).all()


def test_a_client_that_is_told_to_come_again_does_so_later() -> None:
    async def shed(_: bytes) -> bytes:
        return SHED

    sent = loaded(shed, clients=3, seconds=COMES_AGAIN_SECONDS / 2)
    assert sent.status_R.tolist() == [429] * 3


def test_figures_are_of_what_was_due_after_the_warm_up() -> None:
    sent = Sent(("a",), np.zeros(4, np.int64), np.array([0.0, 1.0, 2.0, 3.0]), np.array([9.0, 9.0, 0.1, 0.2]),
                np.full(4, 200), np.zeros(4, np.bool_), 4.0)  # fmt: skip
    found = sent.of(after=2.0).figures()
    assert found["per_second"] == pytest.approx(1.0)
    assert found["p50_ms"] == pytest.approx(150.0)


def test_nobody_listening_is_a_failure_and_no_exception() -> None:
    async def run() -> Sent:
        return await closed_loop(calls("a"), host="127.0.0.1", port=9, clients=1, seconds=0.05)

    found = asyncio.run(run())
    assert len(found) > 0
    assert (found.status_R == FAILED).all()
