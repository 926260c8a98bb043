"""Two processes of one workspace exchange their models under traffic: no request fails, and both end up alike."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from foretaste.ops.redis_server import free_port
from foretaste.testing.keys import key_headers
from foretaste.testing.shop import Shop

PROCESS = """
import sys
from pathlib import Path
import uvicorn
from foretaste.serving.app import open_app
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.shedding import SheddingConfig
patient = {"budget_ms": 60_000, "shedding": SheddingConfig(target_ms=60_000, burst_ms=60_000)}
serving = ServingConfig(housekeeping_seconds=0.3, **patient)
app = open_app(ServiceConfig(workspace=Path(sys.argv[1]), features_repo=Path("features"), serving=serving))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def until(holds: Callable[[], bool], *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"did not hold within {seconds} s"
        time.sleep(0.05)


@contextlib.contextmanager
def served(workspace: Path) -> Iterator[httpx.Client]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", PROCESS, str(workspace), str(port)], stderr=subprocess.DEVNULL)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=key_headers(workspace), timeout=120)

    def ready() -> bool:
        assert process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health/ready").status_code == 200
        return False

    try:
        until(ready)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=60)


def answering(client: httpx.Client) -> set[str]:
    """Releases that this process answers with, and that it knows of all."""
    told = client.get("/v1/models").json()
    return {client.get("/health/ready").json()["release"], *(one["release"] for one in told["replicas"])}


@pytest.mark.slow
def test_processes_swap_under_traffic_without_a_failed_request(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    names = [shop.release(1), shop.release(2)]
    shop.promote(names[0])
    done = threading.Event()
    found: list[tuple[int, str]] = []

    def keep_asking(client: httpx.Client) -> None:
        number = 0
        while not done.is_set():
            number += 1
            body = {"member_id": f"m{number % 9}", "session_id": "s", "k": 5}
            try:
                answer = client.post("/v1/recommend", json=body)
                found.append((answer.status_code, str(answer.json().get("decision_id"))))
            except httpx.HTTPError as error:
                found.append((0, repr(error)))

    with served(tmp_path) as one, served(tmp_path) as other:
        threads = [threading.Thread(target=keep_asking, args=(client,)) for client in (one, other)]
        for thread in threads:
            thread.start()
        for number in range(4):
            name = names[1 - number % 2]
            answer = (one, other)[number // 2].post(f"/v1/models/{name}/promote")
            assert answer.status_code == 200, answer.text
            until(lambda name=name: answering(one) == answering(other) == {name})  # type: ignore[misc]
        done.set()
        for thread in threads:
            thread.join()
        assert {status for status, _ in found} == {200}
        rows = [one.get(f"/v1/decisions/{name}").json() for _, name in found[:: max(1, len(found) // 100)]]
        assert {row["release"] for row in rows} == set(names)
        for row in rows[::10]:
            replayed = one.post(f"/v1/decisions/{row['decision_id']}/replay")
            assert replayed.status_code == 200, replayed.text
            assert replayed.json()["identical"]
    print(f"{len(found)} requests, 4 swaps of 2 processes")
