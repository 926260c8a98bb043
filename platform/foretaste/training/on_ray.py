"""The loop's surroundings on Ray: data read by Ray Data, workers run and restarted by Ray Train."""

from __future__ import annotations

import logging
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from ray.data import DataContext
from ray.util.queue import Empty, Queue
from torch import Tensor

from foretaste.training.checkpoints import Checkpoint, read_checkpoint, write_records, write_shard
from foretaste.training.config import TrainingConfig
from foretaste.training.executors import MakeTask, Shard, Weight, nothing
from foretaste.training.loop import Epoch, best_weights, train

Item = TypeVar("Item")


class RayContext:
    """One Ray Train worker; each writes its shard of a checkpoint, the first one tells the driver of the epoch."""

    def __init__(self, epochs: Queue) -> None:
        about = ray.train.get_context()
        self.rank: int = about.get_world_rank()
        self.world_size: int = about.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self._epochs = epochs

    def add_up(self, flat: Tensor) -> None:
        """Sum over all workers in place."""
        if self.world_size > 1:
            torch.distributed.all_reduce(flat)

    def start_adding(self, flat: Tensor) -> Callable[[], None]:
        """Begin to sum over all workers in place."""
        work = torch.distributed.all_reduce(flat, async_op=True)
        return lambda: None if work is None else _done(work)

    def gather(self, rows: Tensor) -> list[Tensor]:
        """All workers' rows; shorter ones travel filled up, since gloo wants the same shape of everybody."""
        length = torch.tensor([len(rows)], device=self.device)
        lengths = [torch.zeros_like(length) for _ in range(self.world_size)]
        torch.distributed.all_gather(lengths, length)
        longest = max(int(one) for one in lengths)
        filled = rows.new_zeros((longest, *rows.shape[1:]))
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in range(self.world_size)]
        torch.distributed.all_gather(parts, filled)
        return [part[: int(one)] for part, one in zip(parts, lengths, strict=True)]

    def resume(self) -> Checkpoint | None:
        """Give the run's last checkpoint, or None."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return read_checkpoint(Path(folder))

    def report(self, epoch: Epoch, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Report the epoch with this worker's shard of the checkpoint; all workers meet.

        Ray brings the shards together while the next epoch trains.
        """
        metrics = {"epoch": epoch.number, "loss": epoch.loss, **epoch.metrics}
        name = f"epoch-{epoch.number:05d}"
        folder = Path(tempfile.mkdtemp(prefix="foretaste-checkpoint-"))
        write_shard(folder, name, tensors, rank=self.rank, of=self.world_size, durable=False)
        if self.rank == 0:
            write_records(folder, name, records, tensors, of=self.world_size, durable=False)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )
        if self.rank == 0:
            self._epochs.put(epoch)


class _Trainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Ctrl-C is the program's to answer: Ray Train's own answer ends it as if all were done."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _done(work: Any) -> None:
    work.wait()


class RayExecutor:
    """Reads with Ray Data once, before the workers take the CPUs, and trains with Ray Train (gloo or NCCL)."""

    def __init__(self, num_workers: int, storage: Path, name: str) -> None:
        self.num_workers = num_workers
        self.storage = storage
        self.name = name
        self._shards: list[Any] = []

    def load(
        self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]], weight: Weight = nothing
    ) -> list[Any]:
        """Read items in Ray tasks; worker r gets every `num_workers`-th of them, whole.

        A part travels as one value of one row, so that no block boundary can cut a history in two. Rows stay in Ray's
        object store, which spills to disk what does not fit; workers fetch them part by part.
        """
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        DataContext.get_current().enable_progress_bars = False

        def to_row(row: dict[str, Any]) -> dict[str, Any]:
            payload, summary = read(pickle.loads(row["item"]))
            return {"order": row["order"], "payload": pickle.dumps(payload), "summary": pickle.dumps(summary)}

        numbered = [{"order": n, "item": pickle.dumps(item)} for n, item in enumerate(items)]
        self._shards = []
        for rank in range(self.num_workers):
            mine = numbered[rank :: self.num_workers]
            made = ray.data.from_items(mine, override_num_blocks=max(1, len(mine))).map(to_row)
            self._shards.append(made.materialize())
        rows = [r for d in self._shards for r in d.select_columns(["order", "summary"]).take_all()]
        if len(rows) != len(items):
            raise RuntimeError(f"{len(items)} parts were to be read, {len(rows)} came back")
        return [pickle.loads(row["summary"]) for row in sorted(rows, key=lambda row: row["order"])]

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Run the loop on the workers; a lost worker is replaced and the run goes on from its last checkpoint.

        Raises ray.train's TrainingFailedError after more than `max_failures` failures.
        """
        with _listening(on_epoch) as epochs:
            trainer = _Trainer(
                _work,
                train_loop_config={
                    "make_task": make_task,
                    "config": config,
                    "epochs": epochs,
                    "blocks": [shard.get_internal_block_refs() for shard in self._shards],
                },
                scaling_config=ray.train.ScalingConfig(
                    num_workers=self.num_workers,
                    use_gpu=config.use_gpu,
                    resources_per_worker={"CPU": config.cpus_per_worker} | ({"GPU": 1} if config.use_gpu else {}),
                ),
                run_config=ray.train.RunConfig(
                    name=self.name,
                    storage_path=str(self.storage),
                    failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
                    checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                ),
            )
            result = trainer.fit()
        if result.checkpoint is None:
            raise RuntimeError(f"run {self.name} ended without a checkpoint in {self.storage}")
        with result.checkpoint.as_directory() as folder:
            checkpoint = read_checkpoint(Path(folder))
        return checkpoint[0] | {"best": best_weights(checkpoint)}


def _work(given: dict[str, Any]) -> None:
    config: TrainingConfig = given["config"]
    torch.set_num_threads(config.threads_per_worker)
    context = RayContext(given["epochs"])
    task = given["make_task"](_shard(given["blocks"][context.rank]), context.rank)
    train(task, config, context)


def _shard(blocks: Sequence[Any]) -> Shard:
    """Payloads by their place in the blocks of a dataset; a block that is asked for is brought to this machine."""
    places: list[tuple[int, Any, int]] = []
    for block in blocks:
        places += [(order, block, row) for row, order in enumerate(_column(block, "order").to_pylist())]
    places.sort(key=lambda place: place[0])

    def fetch(n: int) -> Any:
        _, block, row = places[n]
        return pickle.loads(_column(block, "payload")[row].as_buffer())

    return Shard([order for order, _, _ in places], fetch)


def _column(block: Any, name: str) -> pa.ChunkedArray:
    return ray.get(block)[name]


@contextmanager
def _listening(on_epoch: Callable[[Epoch], None]) -> Iterator[Queue]:
    """Tell the caller of epochs while its own thread waits for the run; what that raises is raised at the end."""
    epochs = Queue(actor_options={"num_cpus": 0})
    done = threading.Event()
    raised: list[Exception] = []

    def listen() -> None:
        while not (done.is_set() and epochs.empty()):
            try:
                on_epoch(epochs.get(timeout=0.2))
            except Empty:
                continue
            except Exception as error:
                raised.append(error)

    thread = threading.Thread(target=listen, name="epochs", daemon=True)
    thread.start()
    try:
        yield epochs
    finally:
        done.set()
        thread.join(timeout=10)
        epochs.shutdown(force=True)
    if raised:
        raise raised[0]
