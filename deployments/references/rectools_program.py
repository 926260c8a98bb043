"""Train one of RecTools' sequential models and say what it knows: `python rectools_program.py FOLDER`.

It runs in an environment of its own (requirements.txt beside it) and knows nothing of the platform. It reads
FOLDER/settings.json and FOLDER/input.npz, prints a line of JSON an epoch, and writes FOLDER/output.npz and last
FOLDER/result.json. What the files hold stands in foretaste/jobs/reference.py, which starts it.

Training is RecTools' own: its data preparator, its dataloader, its Lightning module. Only the clock, the validation
between epochs and the reading of the states are here. A case's state comes from the same functions that RecTools'
`recommend` calls, given that case's own history.

Shapes: T interactions, B cases, N titles (row j is title j + 1), D width, L length of a sequence.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.ligr import LiGRLayers
from torch.utils.data import DataLoader

NDCG_AT = 10
PACKAGES = ("RecTools", "torch", "pytorch-lightning", "numpy")


class Sequences(torch.utils.data.Dataset):
    """Histories of some cases as RecTools' collate functions take them; cases that know no title are left out."""

    def __init__(self, cases: Cases, preparator: Any, length: int) -> None:
        self.cases, self.length, self.with_time = cases, length, preparator.add_unix_ts
        self.id_N1 = np.zeros(cases.num_titles + 1, dtype=np.int64)
        known = preparator.get_known_item_ids().astype(np.int64)
        self.id_N1[known] = preparator.get_known_items_sorted_internal_ids()
        known_T1 = np.concatenate([[0], np.cumsum(self.id_N1[cases.title_T] > 0)])
        self.rows = np.flatnonzero(known_T1[cases.stop_B] > known_T1[cases.start_B])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[list[int], list[float], dict[str, list[int]]]:
        row = self.rows[index]
        span = slice(self.cases.start_B[row], self.cases.stop_B[row])
        id_T = self.id_N1[self.cases.title_T[span]]
        items = id_T[id_T > 0][-self.length :].tolist()
        if not self.with_time:
            return items, [], {}
        # RecTools reads the time of what is asked for from a dummy item at the end
        at_T = self.cases.at_T[span][id_T > 0][-self.length :]
        return [*items, 0], [], {"unix_ts": [at // 1_000_000 for at in (*at_T.tolist(), int(self.cases.asof_B[row]))]}


class Cases:
    """Questions over one timeline."""

    def __init__(self, given: Any, prefix: str, num_titles: int) -> None:
        self.title_T, self.at_T, self.num_titles = given["title_T"], given["at_T"], num_titles
        self.start_B, self.stop_B, self.asof_B = (given[f"{prefix}_{name}_B"] for name in ("start", "stop", "asof"))


class Watch(Callback):
    """Times every epoch, validates after it, keeps the best weights and ends the training in time."""

    def __init__(self, settings: dict[str, Any], given: Any) -> None:
        self.settings, self.given, self.model = settings, given, None
        self.cases = Cases(given, "validation", settings["num_titles"])
        self.epochs: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.best_epoch, self.best_ndcg, self.losses = 0, -1.0, [0.0, 0.0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """RecTools copies its trainer before it fits; what was seen is wanted here."""
        return self

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.losses = [0.0, 0.0]
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses[0] += float(outputs["loss"])
        self.losses[1] += 1

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        number = len(self.epochs) + 1
        ndcg = self._ndcg() if len(self.cases.asof_B) else float(number)
        if ndcg > self.best_ndcg:
            self.best = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            self.best_ndcg, self.best_epoch = ndcg, number
        epoch = {
            "number": number,
            "loss": self.losses[0] / max(1.0, self.losses[1]),
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "ndcg": ndcg if len(self.cases.asof_B) else None,
        }
        self.epochs.append(epoch)
        print(json.dumps(epoch), flush=True)
        trainer.should_stop = number - self.best_epoch >= self.settings["patience"]
        module.train()

    def _ndcg(self) -> float:
        """NDCG@10 over the whole catalogue of the validation cases, ties in order of code."""
        state_BD, title_ND, known_N, cold_B = states(self.model, self.cases, self.settings)
        total = 0.0
        for row, target in enumerate(self.given["validation_target_B"]):
            if cold_B[row] or not known_N[target - 1]:
                continue
            score_N = np.where(known_N, title_ND @ state_BD[row], -np.inf)
            own = score_N[target - 1]
            if self.settings["exclude_seen"]:
                seen = self.cases.title_T[self.cases.start_B[row] : self.cases.stop_B[row]]
                score_N[seen[seen > 0] - 1] = -np.inf
            rank = int((score_N > own).sum() + (score_N[: target - 1] == own).sum())
            total += 1.0 / np.log2(rank + 2.0) if rank < NDCG_AT else 0.0
        return total / len(cold_B)


def states(model: Any, cases: Cases, settings: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """State of each case, vector of each title, which titles are known, which cases know none of theirs.

    The score of a title is the product of the two, as in RecTools' ranker.
    """
    preparator, module = model.data_preparator, model.lightning_model
    sequences = Sequences(cases, preparator, settings["length"])
    state_BD = np.zeros((len(cases.asof_B), settings["width"]), dtype=np.float32)
    title_ND = np.zeros((cases.num_titles, settings["width"]), dtype=np.float32)
    known_N = sequences.id_N1[1:] > 0
    cold_B = np.ones(len(cases.asof_B), dtype=np.bool_)
    cold_B[sequences.rows] = False
    if not cold_B.all():
        loader = DataLoader(sequences, batch_size=256, collate_fn=preparator._collate_fn_recommend)
        state_KD, item_ID = module._get_user_item_embeddings(loader, "cpu")
        similarity = module.torch_model.similarity_module
        if similarity.distance.name == "COSINE":
            state_KD, item_ID = (similarity._get_embeddings_norm(one) for one in (state_KD, item_ID))
        state_BD[sequences.rows] = state_KD.detach().numpy()
        title_ND[known_N] = item_ID.detach().numpy()[sequences.id_N1[1:][known_N]]
    return state_BD, title_ND, known_N, cold_B


def build(settings: dict[str, Any], watch: Watch) -> Any:
    """Make the untrained model that the settings name, with RecTools' own recipe for all that they do not say."""

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu", devices=1, max_epochs=settings["epochs"], min_epochs=1, callbacks=[watch], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    common = {
        "n_blocks": settings["depth"],
        "n_heads": settings["heads"],
        "n_factors": settings["width"],
        "session_max_len": settings["length"],
        "dropout_rate": settings["dropout"],
        "lr": settings["learning_rate"],
        "batch_size": settings["batch_size"],
        "loss": settings["loss"],
        "n_negatives": settings["num_negatives"],
        "item_net_block_types": (IdEmbeddingsItemNet,),
        "get_trainer_func": trainer,
        "dataloader_num_workers": 0,
    }
    kind = settings["kind"]
    if kind == "sasrec":
        return SASRecModel(**common)
    if kind == "esasrec":
        return SASRecModel(**common, transformer_layers_type=LiGRLayers)
    if kind == "bert4rec":
        return BERT4RecModel(**common, mask_prob=settings["mask_share"])
    if kind == "hstu":
        return HSTUModel(
            **common,
            relative_time_attention=settings["time_aware"],
            relative_pos_attention=True,
            lightning_module_kwargs={"logits_t": settings["temperature"]},
        )
    raise SystemExit(f"settings.json: kind {kind!r}, wanted sasrec, bert4rec, esasrec or hstu")


def dataset(given: Any) -> Dataset:
    """Training rows as RecTools takes them; the weight is 1 for what is to be predicted, 0 for what is only read."""
    columns = (Columns.User, Columns.Item, Columns.Datetime, Columns.Weight)
    names = ("train_actor_T", "train_title_T", "train_at_T", "train_weight_T")
    frame = pd.DataFrame({column: given[name] for column, name in zip(columns, names, strict=True)})
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="us").astype("datetime64[ns]")
    return Dataset.construct(frame)


def main(folder: Path) -> Any:
    """Train, write the states of all cases and return the model."""
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    with np.load(folder / "input.npz") as stored:
        given = {name: stored[name] for name in stored.files}
    seed_everything(settings["seed"], workers=True)
    watch = Watch(settings, given)
    model = watch.model = build(settings, watch)
    model.fit(dataset(given))
    model.lightning_model.load_state_dict(watch.best)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.process_time()
    found = states(model, Cases(given, "case", settings["num_titles"]), settings)
    np.savez(folder / "output.npz", **dict(zip(("state_BD", "title_ND", "known_N", "cold_B"), found, strict=True)))
    trained = model.data_preparator.train_dataset.interactions.df
    whole(folder / "result.json", {
        "epochs": watch.epochs,
        "best_epoch": watch.best_epoch,
        "sequences": int(trained[Columns.User].nunique()),
        "interactions": len(trained),
        "parameters": sum(one.numel() for one in model.lightning_model.torch_model.parameters()),
        "inference_cpu_seconds": time.process_time() - began,
        "peak_bytes": peak_bytes,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    })  # fmt: skip
    return model


def whole(path: Path, value: dict[str, Any]) -> None:
    """Write JSON under another name and rename it, so that it is whole or absent."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def end_with_parent(every_seconds: float = 1.0) -> None:
    """End this program when the one that started it is gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
