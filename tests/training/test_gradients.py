"""Gradients, dense and of rows, are the mean over all predictions of all workers, and so are the steps."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foretaste.training.checkpoints import Checkpoint, read_checkpoint, write_records, write_shard
from foretaste.training.config import TrainingConfig
from foretaste.training.gradients import Gradients
from foretaste.training.loop import Epoch, train
from foretaste.training.optimizers import Optimizer
from foretaste.training.plain import PlainContext

NUM_TITLES, WIDTH = 50, 4
CONFIG = TrainingConfig(epochs=2, batch_size=12, learning_rate=0.05, weight_decay=0.1, max_gradient_norm=0.5)


class Toy(nn.Module):
    """A table of titles, whole or by rows, and a layer; one parameter is never used."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.titles = nn.Embedding(NUM_TITLES, WIDTH, sparse=sparse)
        self.layer = nn.Linear(WIDTH, 1)
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, title_P: Tensor) -> Tensor:
        logit_P: Tensor = self.layer(self.titles(title_P))[:, 0]
        return logit_P


class ToyTask:
    """Learns the parity of titles; workers have different numbers of cases, some steps are empty."""

    def __init__(self, cases: list[int], *, sparse: bool, seed: int = 3) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: Toy = Toy(sparse=sparse)
        self.cases = torch.tensor(cases)
        self.num_predictions = len(cases)

    def steps(self, epoch: int, num_steps: int) -> Iterable[Iterable[Tensor]]:
        for chunk in torch.tensor_split(self.cases, num_steps):
            yield [part for part in torch.split(chunk, 3) if len(part)]

    def loss(self, micro_batch: Tensor) -> tuple[Tensor, int]:
        logit = self.network(micro_batch)
        wanted = (micro_batch % 2).to(logit.dtype)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, wanted, reduction="sum")
        return loss, len(micro_batch)

    def validate(self) -> dict[str, tuple[float, float]]:
        return {}


class Gloo(PlainContext):
    """A worker of a process group without Ray."""

    def add_up(self, flat: Tensor) -> None:
        torch.distributed.all_reduce(flat)

    def start_adding(self, flat: Tensor) -> Callable[[], None]:
        work = torch.distributed.all_reduce(flat, async_op=True)
        return lambda: None if work is None else _wait(work)

    def gather(self, rows: Tensor) -> list[Tensor]:
        found: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(found, rows)
        return found


def _wait(work: Any) -> None:
    work.wait()


def worker(rank: int, folder: str, shares: list[list[int]], sparse: bool, buckets: int) -> None:
    import foretaste.training.gradients as gradients

    gradients.BUCKET_FLOATS = buckets
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(shares))
    context = Gloo(lambda epoch: None, rank=rank, world_size=len(shares))
    train_and_keep(context, ToyTask(shares[rank], sparse=sparse), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def train_and_keep(context: PlainContext, task: ToyTask, path: Path) -> None:
    state = train(task, CONFIG, context)
    torch.save({"best": state["best"], "losses": [epoch["loss"] for epoch in state["epochs"]]}, path)


def kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


CASES = [(7 * n) % NUM_TITLES for n in range(40)]


def two_workers(sparse: bool, buckets: int) -> list[dict[str, Any]]:
    """Train on two workers, the first of which has six of every ten cases."""
    chunks = [part.tolist() for part in torch.tensor_split(torch.tensor(CASES), 4)]
    shares = [[c for part in chunks for c in part[:6]], [c for part in chunks for c in part[6:]]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, shares, sparse, buckets)
        processes = [multiprocessing.get_context("fork").Process(target=worker, args=(r, *arguments)) for r in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        return [kept(Path(folder) / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("buckets", [1, 1 << 20])
def test_two_workers_take_the_steps_that_one_would(tmp_path: Path, sparse: bool, buckets: int) -> None:
    train_and_keep(PlainContext(lambda epoch: None), ToyTask(CASES, sparse=sparse), tmp_path / "one.pt")
    one, (first, second) = kept(tmp_path / "one.pt"), two_workers(sparse, buckets)
    for name, weights in one["best"].items():
        assert torch.equal(first["best"][name], second["best"][name]), name
        torch.testing.assert_close(first["best"][name], weights, rtol=1e-4, atol=1e-6)
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_two_workers_give_the_same_bits_again() -> None:
    first, again = (two_workers(True, 1 << 20)[0] for _ in range(2))
    assert all(torch.equal(first["best"][name], again["best"][name]) for name in first["best"])


def gradients_of(task: ToyTask, parts: list[list[int]], max_norm: float) -> tuple[Gradients, Tensor]:
    gradients = Gradients(task.network, PlainContext(lambda epoch: None))
    gradients.clear()
    for number, part in enumerate(parts):
        loss, count = task.loss(torch.tensor(part))
        gradients.add(loss, count, last=number == len(parts) - 1)
    return gradients, gradients.share(max_norm).clone()


@pytest.mark.parametrize("max_norm", [1e6, 1e-3])
def test_rows_and_dense_gradients_are_means_clipped_by_their_common_norm(max_norm: float) -> None:
    parts = [[1, 2, 2], [3, 1]]
    found = ToyTask([], sparse=True)
    gradients, total = gradients_of(found, parts, max_norm)
    expected = ToyTask([], sparse=False)
    loss, _ = expected.loss(torch.tensor([1, 2, 2, 3, 1]))
    (loss / 5).backward()  # type: ignore[no-untyped-call]
    expected.network.unused.grad = torch.zeros(3)
    nn.utils.clip_grad_norm_(expected.network.parameters(), max_norm)
    for (name, one), other in zip(found.network.named_parameters(), expected.network.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.to_dense(), other.grad, msg=name)
    assert total.tolist() == pytest.approx([loss.item(), 5])
    assert gradients.rows[0].grad is not None
    assert gradients.rows[0].grad.indices().tolist() == [[1, 2, 3]]


def test_a_step_over_rows_is_that_of_adamw_and_leaves_other_rows_alone() -> None:
    torch.manual_seed(0)  # a gradient near 0 would show where the two add their epsilon
    tables = [nn.Embedding(6, 3, sparse=sparse) for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    before = tables[0].weight.detach().clone()
    sparse = Optimizer([], list(tables[0].parameters()), CONFIG)
    dense = Optimizer(tables[1].parameters(), [], CONFIG)
    for _ in range(3):
        for table, optimizer in zip(tables, (sparse, dense), strict=True):
            table.weight.grad = None
            (table(torch.tensor([1, 4, 4])) ** 3).sum().backward()
            optimizer.step(0.01)
    touched = torch.tensor([1, 4])
    torch.testing.assert_close(tables[0].weight[touched], tables[1].weight[touched])
    rest = torch.tensor([0, 2, 3, 5])
    assert torch.equal(tables[0].weight[rest], before[rest])


def test_a_table_declared_sparse_but_used_whole_is_named() -> None:
    task = ToyTask([], sparse=True)
    gradients = Gradients(task.network, PlainContext(lambda epoch: None))
    gradients.clear()
    gradients.add(task.network.titles.weight.sum(), 1, last=True)
    with pytest.raises(ValueError, match="declared sparse was also used whole"):
        gradients.share(1.0)


def checkpoint(folder: Path, tensors: Mapping[str, Tensor], of: int) -> Path:
    for rank in range(of):
        write_shard(folder, "epoch-00001", tensors, rank=rank, of=of)
    write_records(folder, "epoch-00001", {"epochs": [], "best_value": float("-inf")}, tensors, of=of)
    return folder


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_a_checkpoint_is_divided_evenly_and_read_whole_by_any_number_of_workers(tmp_path: Path, of: int) -> None:
    tensors = {"network/w": torch.randn(5, 7), "optimizer/0/step": torch.tensor(4.0), "network/codes": torch.arange(3)}
    records, found = read_checkpoint(checkpoint(tmp_path, tensors, of))
    assert records == {"epochs": [], "best_value": float("-inf")}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert found["network/codes"].dtype == torch.int64
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    assert max(sizes) - min(sizes) <= 128


def test_a_checkpoint_without_one_of_its_shards_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path, {"w": torch.randn(6)}, 3)
    (tmp_path / "epoch-00001-00001-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="of 3 shards there is no epoch-00001-00001-of-00003"):
        read_checkpoint(tmp_path)


class Kept(PlainContext):
    """Keeps the checkpoint of an epoch, and can begin with one."""

    def __init__(self, folder: Path, start: Checkpoint | None = None) -> None:
        super().__init__(lambda epoch: None, start=start)
        self.folder = folder

    def report(self, epoch: Epoch, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        checkpoint_folder = self.folder / str(epoch.number)
        for rank in range(2):
            write_shard(checkpoint_folder, "x", tensors, rank=rank, of=2)
        write_records(checkpoint_folder, "x", records, tensors, of=2)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_run_goes_on_from_the_shards_of_two_workers_exactly_where_they_stopped(tmp_path: Path, sparse: bool) -> None:
    config = CONFIG.model_copy(update={"epochs": 4})
    whole = train(ToyTask(CASES, sparse=sparse), config, Kept(tmp_path))
    context = Kept(tmp_path / "again", read_checkpoint(tmp_path / "2"))
    resumed = train(ToyTask(CASES, sparse=sparse), config, context)
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [epoch["loss"] for epoch in whole["epochs"]]
    assert all(torch.equal(whole["best"][name], resumed["best"][name]) for name in whole["best"])
