"""Checkpoints in shards: every worker writes its part of every tensor; any number of workers reads them again.

A checkpoint is a folder with `loop.json` (records of the epochs, shapes of the tensors, number of shards) and
`NAME-00000-of-00002.safetensors`, ...; it is whole when `loop.json` and all shards that it names are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foretaste.ops.files import read_json, whole_file

RECORDS = "loop.json"

Checkpoint = tuple[dict[str, Any], dict[str, Tensor]]
"""Plain records, and tensors by name."""


def write_shard(
    folder: Path, name: str, tensors: Mapping[str, Tensor], *, rank: int, of: int, durable: bool = True
) -> None:
    """Write the part of every tensor that is this worker's: as many of its values as any other's."""
    mine = {key: _part(tensor, rank, of) for key, tensor in tensors.items()}
    with whole_file(folder / _shard(name, rank, of), durable=durable) as partial:
        save_file(mine, partial)


def write_records(
    folder: Path, name: str, records: Mapping[str, Any], tensors: Mapping[str, Tensor], *, of: int, durable: bool = True
) -> None:
    """Write what makes the shards called `name` a checkpoint: written last in one folder, or by the first worker."""
    about = {"name": name, "of": of, "shapes": {key: list(t.shape) for key, t in tensors.items()}, "records": records}
    with whole_file(folder / RECORDS, durable=durable) as partial:
        partial.write_text(json.dumps(about))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, whatever the number of its shards.

    Raises FileNotFoundError where one is missing, ValueError where a file is not whole.
    """
    about = read_json(folder / RECORDS)
    paths = [folder / _shard(about["name"], rank, about["of"]) for rank in range(about["of"])]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"checkpoint {folder}: of {about['of']} shards there is no {', '.join(missing)}")
    shards = [_load(path) for path in paths]
    shapes: dict[str, list[int]] = about["shapes"]
    tensors = {key: torch.cat([shard.pop(key) for shard in shards]).view(shape) for key, shape in shapes.items()}
    return about["records"], tensors


def _load(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole shard: {error}") from error
    return found


def _part(tensor: Tensor, rank: int, of: int) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[len(flat) * rank // of : len(flat) * (rank + 1) // of].cpu()


def _shard(name: str, rank: int, of: int) -> str:
    return f"{name}-{rank:05d}-of-{of:05d}.safetensors"
