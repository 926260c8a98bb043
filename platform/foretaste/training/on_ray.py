"""The loop's surroundings on Ray: data read by Ray Data, workers run and restarted by Ray Train."""

from __future__ import annotations

import logging
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from ray.data import DataContext
from ray.exceptions import GetTimeoutError, ObjectLostError, RayError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from foretaste.training.checkpoints import Checkpoint, read_checkpoint, write_records, write_shard
from foretaste.training.config import TrainingConfig
from foretaste.training.executors import MakeTask, Read, Shard, Weight, dealt, found, nothing
from foretaste.training.loop import Epoch, ended, final, train
from foretaste.training.runs import Run
from foretaste.training.scaling import collectives, failures, scaling

Item = TypeVar("Item")


class Part(NamedTuple):
    """An item that was read, and where it lies."""

    order: int
    item: Any  # what it was read from; this and the next are references of Ray's object store
    block: Any
    row: int


class RayContext:
    """One Ray Train worker; each writes its shard of a checkpoint, the first one tells the driver of the epoch."""

    def __init__(self, epochs: Queue, start: Callable[[], Checkpoint] | None = None) -> None:
        """`start` reads what the run goes on from that another submission left."""
        about = ray.train.get_context()
        self.rank: int = about.get_world_rank()
        self.world_size: int = about.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self._epochs = epochs
        self._start = start

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
            return None if self._start is None else self._start()
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

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parts: list[Part] = []
        self._weights: list[int] = []
        self._read: Read = _unread

    def load(
        self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]], weight: Weight = nothing
    ) -> list[Any]:
        """Read items in Ray tasks; every worker gets some of them, whole, that weigh about as much as any other's.

        A part travels as one value of one row, so that no block boundary can cut a history in two. Rows stay in Ray's
        object store, which spills to disk what does not fit; workers fetch them part by part. What was lost with its
        node is made again, by Ray or by the worker that wants it.
        """
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        DataContext.get_current().enable_progress_bars = False

        def to_row(row: dict[str, Any]) -> dict[str, Any]:
            payload, summary = read(pickle.loads(row["item"]))
            return {"order": row["order"], "payload": pickle.dumps(payload), "summary": pickle.dumps(summary)}

        self._read = read
        pickled = [pickle.dumps(item) for item in items]
        kept = [ray.put(one) for one in pickled]
        numbered = [{"order": n, "item": one} for n, one in enumerate(pickled)]
        made = ray.data.from_items(numbered, override_num_blocks=max(1, len(items))).map(to_row).materialize()
        blocks = [ref for bundle in made.iter_internal_ref_bundles() for ref in bundle.block_refs]
        about = ray.remote(num_cpus=0)(_about)  # runs where the block is
        told = ray.get([about.remote(block) for block in blocks])
        rows = [
            (order, summary, Part(order, kept[order], block, row))
            for block, of in zip(blocks, told, strict=True)
            for order, row, summary in of
        ]
        rows.sort(key=lambda row: row[0])
        if [order for order, _, _ in rows] != list(range(len(items))):
            raise RuntimeError(f"{len(items)} parts were to be read, {len(rows)} came back")
        self._parts = [part for _, _, part in rows]
        summaries = [pickle.loads(summary) for _, summary, _ in rows]
        self._weights = [weight(summary) for summary in summaries]
        return summaries

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Run the loop on the workers; lost ones are replaced and the run goes on from its last checkpoint.

        So does a run that another submission began at the same place. Raises ray.train's TrainingFailedError after
        more than `max_failures` failures.
        """
        start = found(self._run, config)
        if start is not None and ended(start.checkpoint[0], config):
            return final(start.checkpoint)
        with _listening(on_epoch) as epochs:
            trainer = _Trainer(
                _work,
                train_loop_config={
                    "make_task": make_task,
                    "config": config,
                    "epochs": epochs,
                    "parts": self._parts,
                    "weights": self._weights,
                    "read": self._read,
                    "start": None if start is None else partial(self._run.read, start.path),
                },
                torch_config=collectives(config),
                scaling_config=scaling(config),
                run_config=ray.train.RunConfig(
                    name=self._run.attempt(),
                    storage_path=self._run.path,
                    storage_filesystem=self._run.store,
                    failure_config=failures(config),
                    checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                ),
            )
            result = trainer.fit()
        if result.checkpoint is None:
            raise RuntimeError(f"run {self._run.name} ended without a checkpoint in {self._run.path}")
        with result.checkpoint.as_directory() as folder:
            return final(read_checkpoint(Path(folder)))

    def forget(self) -> None:
        """Remove the run's checkpoints."""
        self._run.remove()


def _about(block: pa.Table) -> list[tuple[int, int, bytes]]:
    """Order, row and summary of the parts in a block."""
    orders, summaries = block["order"].to_pylist(), block["summary"].to_pylist()
    return [(order, row, summary) for row, (order, summary) in enumerate(zip(orders, summaries, strict=True))]


def _work(given: dict[str, Any]) -> None:
    config: TrainingConfig = given["config"]
    torch.set_num_threads(config.threads_per_worker)
    context = RayContext(given["epochs"], given["start"])
    mine = [given["parts"][n] for n in dealt(given["weights"], context.world_size)[context.rank]]
    task = given["make_task"](_shard(mine, given["read"], config.fetch_seconds), context.rank)
    train(task, config, context)


def _shard(parts: Sequence[Part], read: Read, seconds: float) -> Shard:
    """Payloads by their place in the blocks of a dataset; a block that is asked for is brought to this machine.

    One that is not here after so many seconds is not waited for: its node is gone, and the task that would make it
    again wants a processor, which the workers that wait for it may hold.
    """

    def fetch(n: int) -> Any:
        part = parts[n]
        try:
            block: pa.Table = ray.get(part.block, timeout=seconds)
        except (GetTimeoutError, ObjectLostError):
            return read(pickle.loads(ray.get(part.item)))[0]
        return pickle.loads(block["payload"][part.row].as_buffer())

    return Shard([part.order for part in parts], fetch)


def _unread(item: Any) -> tuple[Any, Any]:
    raise RuntimeError("nothing was loaded")


@contextmanager
def _listening(on_epoch: Callable[[Epoch], None]) -> Iterator[Queue]:
    """Tell the caller of epochs while its own thread waits for the run; what that raises is raised at the end.

    The queue stands on the caller's node: others may go, and workers with them.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    epochs = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    done = threading.Event()
    raised: list[Exception] = []

    def listen() -> None:
        while not (done.is_set() and epochs.empty()):
            try:
                epoch = epochs.get(timeout=0.2)
            except Empty:
                continue
            except RayError:  # it is gone, and the run with it
                return
            try:
                on_epoch(epoch)
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
