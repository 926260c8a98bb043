"""The published segments of the model that is served, read again when they are published anew."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.segments import PUBLISHED, Segments, nearest
from foretaste.contracts.wire import SegmentAnswer
from foretaste.ops.files import read_json

_log = logging.getLogger(__name__)


class PublishedSegments:
    """Tells which segment an intent embedding belongs to; never fails, and says nothing of another model's segments."""

    def __init__(self, file: Path, model: str | None) -> None:
        """`file` need not be there; `model` is the fingerprint of the intent model that is served."""
        self._file = file
        self._model = model
        self._read: tuple[int, int, int] | None = None  # what the file was when it was read
        self._found: Segments | None = None
        self._centre_KD = np.zeros((0, 0))
        self.refresh_if_new()

    def refresh_if_new(self) -> None:
        """Read the file where it is another one; while there is none, or it cannot be read, those of before stay."""
        try:
            status = self._file.stat()
        except OSError:
            return
        now = (status.st_ino, status.st_mtime_ns, status.st_size)
        if now == self._read:
            return
        self._read = now
        try:
            found = Segments.model_validate(read_json(self._file)[PUBLISHED])
        except (OSError, ValueError, KeyError, TypeError):
            _log.exception("%s cannot be read; the segments of before stay", self._file)
            return
        if found.model != self._model:
            _log.warning("%s is of intent model %s, served is %s: no segments", self._file, found.model, self._model)
        self._found, self._centre_KD = (found if found.model == self._model else None), found.centre_KD

    def of(self, z_D: NDArray[np.float32]) -> SegmentAnswer | None:
        """The segment of one embedding; None where none of this model are published."""
        if self._found is None or self._centre_KD.shape[1] != len(z_D):
            return None
        number_B, distance_B = nearest(z_D[None], self._centre_KD)
        number = int(number_B[0])
        label, as_of = self._found.labels[number], self._found.as_of
        return SegmentAnswer(number=number, label=label, distance=float(distance_B[0]), as_of=as_of)
