"""The way into a cluster, and what is counted of what comes over it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from foretaste.cli import CLUSTER_PARTS
from foretaste.jobs.bench_cluster import PARTS, cluster_bench
from foretaste.jobs.bench_cluster_config import ClusterBenchConfig, sized
from foretaste.jobs.bench_cluster_parts import rates
from foretaste.jobs.bench_cluster_stand import PASSWORD, password_named
from foretaste.jobs.bench_cluster_way import CUT, REFUSED, WayIn, outcome
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_faults import Ended
from foretaste.jobs.load import FAILED, Answer, Call, Pool, call, open_loop
from foretaste.jobs.machines import Network, impossible, network
from foretaste.jobs.settings import Settings
from foretaste.ops.redis_server import free_port

OTHER = "127.0.0.2"


class Fake:
    """A worker: what it says to probes and to requests, and what it was asked."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.probed, self.status = 200, 200
        self.hint, self.asked = b"", 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                probe = b"/-/healthz" in head
                self.asked += not probe
                status = self.probed if probe else self.status
                writer.write(b"HTTP/1.1 %d X\r\n%sContent-Length: 0\r\n\r\n" % (status, b"" if probe else self.hint))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def workers() -> AsyncIterator[tuple[Fake, Fake, WayIn]]:
    port = free_port()
    one, other = Fake("127.0.0.1", port), Fake(OTHER, port)
    way = WayIn(lambda: [one.host, other.host], port=port, probe_seconds=0.02, closed=lambda: None)
    async with (
        await asyncio.start_server(one.serve, one.host, port),
        await asyncio.start_server(other.serve, other.host, port),
        way,
    ):
        yield one, other, way


def a_call() -> Call:
    return call("recommend", "POST", "/v1/recommend", b"{}", host="test")


def test_requests_go_to_workers_that_say_that_they_take_some() -> None:
    async def run() -> None:
        async with workers() as (one, other, way):
            for _ in range(30):
                assert (await way.ask(a_call())).status == 200
            assert one.asked > 3 < other.asked
            one.probed = 503
            await asyncio.sleep(0.2)
            before = one.asked
            for _ in range(10):
                assert (await way.ask(a_call())).status == 200
            assert one.asked == before
            other.probed = 503
            await asyncio.sleep(0.2)
            assert (await way.ask(a_call())).status == FAILED
            assert way.num_nobody == 2

    asyncio.run(run())


def test_what_failed_is_asked_once_more_of_another_worker_and_both_answers_are_told() -> None:
    async def run() -> None:
        async with workers() as (one, _, way):
            one.status = 500
            found = [await way.ask(a_call()) for _ in range(30)]
            assert {answer.status for answer in found} == {200}
            assert sum(answer.before == ("500",) for answer in found) == one.asked > 3
            asked, one.status, one.hint = one.asked, 503, b"Retry-After: 1\r\n"
            shed = [answer for answer in [await way.ask(a_call()) for _ in range(30)] if answer.status == 503]
            assert len(shed) == one.asked - asked
            assert all(answer.before == () and answer.retry_after for answer in shed)

    asyncio.run(run())


def test_a_try_at_which_nobody_listened_is_told_from_one_that_was_cut_off() -> None:
    async def run() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        port = free_port()
        async with await asyncio.start_server(hang_up, "127.0.0.1", port):
            cut = await ask_once(port)
        refused = await ask_once(port)
        assert (outcome(cut), outcome(refused)) == (CUT, REFUSED)

    asyncio.run(run())


async def ask_once(port: int) -> Answer:
    with contextlib.closing(Pool("127.0.0.1", port)) as pool:
        return await pool.ask(a_call())


def test_shares_tell_first_tries_from_those_that_were_passed_on_or_repeated() -> None:
    good = Ended("recommend", 0.0, 0.1, 200, False)
    rows = [good] * 96 + [replace(good, before=(REFUSED,))] * 2 + [replace(good, before=(CUT,))]
    rows.append(Ended("events", 0.0, 0.1, 503, True, before=(REFUSED,)))
    found = rates(rows)
    assert (found["at_first"], found["past_refused"], found["in_all"], found["requests"]) == (0.96, 0.98, 0.99, 100)
    assert found["failed_tries"] == {"at last 503": 1, CUT: 1, REFUSED: 3}
    assert rates([])["in_all"] == 0.0


def test_a_load_goes_on_while_something_is_to_come() -> None:
    async def run() -> int:
        async with workers() as (_, _, way):
            until = time.perf_counter() + 0.5
            sent = await open_loop(
                [a_call()], host="none", port=1, per_second=100.0, seconds=0.1, seed=0, ask=way.ask,
                going_on=lambda: time.perf_counter() < until,
            )  # fmt: skip
            assert sent.seconds > 0.3
            return len(sent)

    assert asyncio.run(run()) > 20


def test_parts_are_those_of_the_command_line_and_others_are_refused(tmp_path: Path) -> None:
    assert tuple(PARTS) == CLUSTER_PARTS
    with pytest.raises(ValueError, match="token, head, worker"):
        cluster_bench(Settings(workspace=tmp_path), BenchOptions(name="cluster", part="arms"))


def test_where_there_can_be_no_machines_it_is_said_and_nothing_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = cluster_bench(Settings(workspace=tmp_path), BenchOptions(name="cluster"))
    assert "ip, unshare, mount not installed" in found["skipped"]["cluster"]
    assert found["bars"] == {}


def test_the_quick_size_changes_lengths_and_not_what_is_deployed() -> None:
    config = ClusterBenchConfig(workers=3)
    assert sized(config, quick=False) == config
    quick = sized(config, quick=True)
    assert (quick.workers, quick.deployment) == (3, config.deployment)
    assert quick.settle_seconds < config.settle_seconds


def test_what_is_deployed_names_the_password_and_does_not_hold_it() -> None:
    url = "redis://:s3cret@10.0.0.1:6379/0"
    assert password_named(url, "s3cret") == f"redis://:${{{PASSWORD}}}@10.0.0.1:6379/0"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    why = impossible()
    if why is not None:
        pytest.skip(why)
    with network(tmp_path) as made:
        yield made


def test_a_machine_has_an_address_and_ends_with_all_that_runs_there(net: Network) -> None:
    one, other = net.machine("one"), net.machine("other")
    for machine in (one, other):
        machine.start(["sh", "-c", "sleep 100 & sleep 100 & wait"])
    assert one.address != other.address
    deadline = time.monotonic() + 20
    while min(len(one.processes()), len(other.processes())) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    processes = one.processes()
    assert len(processes) >= 3
    one.kill()
    deadline = time.monotonic() + 20
    while any(process.is_running() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(process.is_running() for process in processes)
    assert (one.runs, one.ended, other.runs) == (False, False, True)
    other.stop(seconds=5.0)
    assert not other.runs


def test_a_machine_that_ended_by_itself_is_said_to_have(net: Network) -> None:
    machine = net.machine("short")
    machine.start(["sh", "-c", "echo gone; touch /tmp/ray/mine"])
    deadline = time.monotonic() + 20
    while not machine.ended and time.monotonic() < deadline:
        time.sleep(0.02)
    assert machine.ended
    assert "gone" in machine.log.read_text()
    assert (machine.folder / "ray" / "mine").is_file()
