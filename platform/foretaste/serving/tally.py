"""What a comparison of served with recomputed values found, as counts that add up over any division of the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from foretaste.signals.differences import Difference


@dataclass(slots=True)
class Tally:
    """Counts of one comparison; plain values only, so that it travels between processes as JSON."""

    decisions: int = 0  # compared
    values: dict[str, int] = field(default_factory=dict)  # compared, by feature
    mismatches: dict[str, dict[str, Any]] = field(default_factory=dict)  # by feature: count, decisions, example
    left_out: dict[str, int] = field(default_factory=dict)  # decisions that could not be made again, by reason
    left_out_examples: dict[str, str] = field(default_factory=dict)  # decision_id by reason
    set_aside: dict[str, int] = field(default_factory=dict)  # decisions with nothing to compare, by reason
    failed_inputs: dict[str, int] = field(default_factory=dict)  # decisions that said so of an input, compared all same
    fallbacks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `plain` gave."""
        return cls(**plain)

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def num_values(self) -> int:
        """Values compared."""
        return sum(self.values.values())

    @property
    def num_mismatches(self) -> int:
        """Values that differ."""
        return sum(one["count"] for one in self.mismatches.values())

    @property
    def num_left_out(self) -> int:
        """Decisions that could not be made again."""
        return sum(self.left_out.values())

    def compared(self, decision_id: str, sizes: Mapping[str, int], found: Iterable[Difference]) -> None:
        """Count one decision with the number of its values by feature and what of them differs."""
        self.decisions += 1
        for name, size in sizes.items():
            _count(self.values, name, size)
        for one in found:
            example = {"decision_id": decision_id, "place": one.place, "served": one.served, "offline": one.offline}
            entry = self.mismatches.setdefault(one.feature, {"count": 0, "decisions": 0, "example": example})
            entry["count"] += one.count
            entry["decisions"] += 1

    def describe(self, *, failed: Iterable[str], fallback: str | None) -> None:
        """Count what a compared decision said of itself: inputs that failed, and why it was not the full answer."""
        for name in failed:
            _count(self.failed_inputs, name)
        if fallback is not None:
            _count(self.fallbacks, fallback)

    def leave_out(self, decision_id: str, reason: str) -> None:
        """Count a decision that could not be made again."""
        _count(self.left_out, reason)
        self.left_out_examples.setdefault(reason, decision_id)

    def put_aside(self, reason: str, number: int) -> None:
        """Count decisions of which there is nothing to compare."""
        if number:
            _count(self.set_aside, reason, number)

    def add(self, other: Tally) -> None:
        """Add the counts of another comparison; of two examples the first stays."""
        self.decisions += other.decisions
        for name in ("values", "left_out", "set_aside", "failed_inputs", "fallbacks"):
            for key, number in getattr(other, name).items():
                _count(getattr(self, name), key, number)
        for reason, decision_id in other.left_out_examples.items():
            self.left_out_examples.setdefault(reason, decision_id)
        for feature, found in other.mismatches.items():
            entry = self.mismatches.setdefault(feature, {"count": 0, "decisions": 0, "example": found["example"]})
            entry["count"] += found["count"]
            entry["decisions"] += found["decisions"]


def _count(counts: dict[str, int], key: str, number: int = 1) -> None:
    counts[key] = counts.get(key, 0) + number
