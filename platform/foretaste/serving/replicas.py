"""What each process of a workspace answers with, left in a folder for whichever is asked."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from foretaste.contracts.wire_models import ReplicaAnswer
from foretaste.ops.files import PARTIAL, whole_file

_STATE = ".json"


class Replicas:
    """States of processes as files; what a dead one left is not told, and removed after a while."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime], fresh_seconds: float) -> None:
        self._folder = folder
        self._clock = clock
        self._fresh = timedelta(seconds=fresh_seconds)
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:6]}"

    def publish(self, state: ReplicaAnswer) -> None:
        """Leave the state of this process as it is now."""
        with whole_file(self._folder / f"{self.name}{_STATE}", durable=False) as partial:
            partial.write_text(state.model_dump_json())
        for file, left in self._left():
            if self._clock() - left.at > 10 * self._fresh:
                file.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Leave nothing."""
        (self._folder / f"{self.name}{_STATE}").unlink(missing_ok=True)

    def others(self) -> list[ReplicaAnswer]:
        """States that other processes left lately."""
        now = self._clock()
        return [one for _, one in self._left() if one.process != self.name and now - one.at <= self._fresh]

    def _left(self) -> list[tuple[Path, ReplicaAnswer]]:
        found = []
        for file in sorted(self._folder.glob(f"*{_STATE}")):
            if file.name.startswith(PARTIAL):
                continue
            try:
                state = ReplicaAnswer.model_validate_json(file.read_bytes())
            except (OSError, ValidationError):
                continue
            found.append((file, state.model_copy(update={"at": state.at.astimezone(UTC)})))
        return found
