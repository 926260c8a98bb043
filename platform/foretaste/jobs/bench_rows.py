"""A step over a large catalogue: the whole table every time, or only the rows of the step.

Shapes: P predictions, S shared negatives, N titles, D width.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foretaste.ops.telemetry import say
from foretaste.training.config import TrainingConfig
from foretaste.training.gradients import Gradients
from foretaste.training.optimizers import Optimizer
from foretaste.training.plain import PlainContext

WIDTH, PREDICTIONS, NEGATIVES = 64, 2_048, 2_048
MOST_TABLES = 4.0
"""What a process may grow by, in tables of titles: the weights, two moments, and one for all the rest."""
_MAIN = "import sys; from foretaste.jobs.bench_rows import main; main(sys.argv[1] == 'rows', int(sys.argv[2]))"


class _Table(nn.Module):
    """A table of title vectors, and the smallest network that uses it on both sides."""

    def __init__(self, num_titles: int, *, rows: bool) -> None:
        super().__init__()
        self.titles = nn.Embedding(num_titles, WIDTH, sparse=rows)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def loss(self, before_P: Tensor, target_P: Tensor, negative_S: Tensor) -> Tensor:
        """Sampled softmax of the next title from the one before."""
        hidden_PD = self.layer(self.titles(before_P))
        own_P = (hidden_PD * self.titles(target_P)).sum(dim=1)
        logits_PS = hidden_PD @ self.titles(negative_S).T
        summed: Tensor = (torch.logaddexp(own_P, torch.logsumexp(logits_PS, dim=1)) - own_P).sum()
        return summed


def rows_figures(num_titles: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time both ways over `num_titles` titles and a tenth of them, each in a process of its own; figures and bars."""
    figures = {
        f"{kind}, {size:,} titles x {WIDTH}": _measure(kind, size)
        for size in (num_titles // 10, num_titles)
        for kind in ("rows", "table")
    }
    small_rows, _, rows, table = figures.values()
    bars = {
        "a step by rows over one by the whole table": _bar(rows["ms"] / table["ms"], 0.5),
        "a step by rows over ten times the titles": _bar(rows["ms"] / small_rows["ms"], 1.5),
        "memory by rows, in tables (weights and two moments are 3)": _bar(
            (rows["peak_mib"] - rows["before_mib"]) / rows["table_mib"], MOST_TABLES
        ),
    }
    return figures, bars


def _measure(kind: str, size: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _MAIN, kind, str(size)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"steps by {kind} over {size} titles failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    say(f"{kind:<6} {size:>9,} titles  {found['ms']:>7.1f} CPU-ms a step, peak {found['peak_mib']:>6.0f} MiB")
    return found


def _bar(value: float, most: float) -> dict[str, Any]:
    return {"value": round(value, 3), "want": f"<= {most}", "holds": value <= most}


def main(rows: bool, num_titles: int) -> None:
    """Time steps in this process and print milliseconds and the peak of its memory as JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = peak_mib()
    network = _Table(num_titles, rows=rows)
    gradients = Gradients(network, PlainContext(lambda epoch: None))
    optimizer = Optimizer(gradients.dense, gradients.rows, TrainingConfig())
    steps = [_step(network, gradients, optimizer, num_titles) for _ in range(3 + (20 if rows else 6))][3:]
    table = network.titles.weight.nbytes / 2**20
    found = {"ms": statistics.median(steps) * 1e3, "before_mib": before, "peak_mib": peak_mib(), "table_mib": table}
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


def _step(network: _Table, gradients: Gradients, optimizer: Optimizer, num_titles: int) -> float:
    drawn = [torch.randint(num_titles, (size,)) for size in (PREDICTIONS, PREDICTIONS, NEGATIVES)]
    started = time.process_time()
    gradients.clear()
    gradients.add(network.loss(*drawn), PREDICTIONS, last=True)
    gradients.share(1.0)
    optimizer.step(1e-3)
    return time.process_time() - started


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
