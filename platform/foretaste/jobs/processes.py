"""The service as processes of its own under uvicorn, without Ray: to be killed and started again by a proof."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from foretaste.client.calls import Calls
from foretaste.serving.config import ServiceConfig

READY_WITHIN_SECONDS = 120.0
MAIN = "import sys; from foretaste.jobs.processes import main; main(sys.argv[1], int(sys.argv[2]))"


def main(config: str, port: int) -> None:
    """Serve in this process; `config` is a ServiceConfig as JSON."""
    import uvicorn

    from foretaste.serving.app import open_app

    app = open_app(ServiceConfig.model_validate_json(config))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


class ServiceProcess:
    """One process; several of one workspace share its stores, as replicas do."""

    def __init__(self, config: ServiceConfig, *, port: int, log: Path, main: str = MAIN) -> None:
        """What it says goes to the end of the file `log`; `main` is what it runs."""
        self._main = main
        self.url = f"http://127.0.0.1:{port}"
        self._config = config
        self._port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return once it answers. Raises ConnectionError when it does not come up."""
        command = [sys.executable, "-c", self._main, self._config.model_dump_json(), str(self._port)]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        with Calls(self.url) as client:
            while not client.ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ConnectionError(f"{self.url} did not come up: {self._log.read_text()[-2000:]}")
                time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power failure of the process would: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Let it finish and end; SIGKILL where it does not within a minute."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
