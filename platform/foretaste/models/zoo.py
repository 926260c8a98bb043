"""Sequence models by name, each as its source describes it where the platform's data allow that."""

from __future__ import annotations

from typing import Any

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.network import IntentModelConfig

WEEK_HOURS = 168.0

_PRESETS: dict[str, dict[str, Any]] = {
    "v0": {"body": HierarchyConfig(intents="none")},
    "v1": {"body": HierarchyConfig(intents="flat")},
    "v2": {"body": HierarchyConfig()},
    "v3": {"body": HierarchyConfig(short_term_hours=WEEK_HOURS)},
    "foretaste": {"body": HierarchyConfig(short_term_hours=WEEK_HOURS, decode=True)},
}
"""IntentRec without intents, with flat heads, with the hierarchy, with the short-term view too (Oh et al., arXiv
2408.05353); then ours, in which predicted classes also raise the titles that have them."""

NETWORKS: tuple[str, ...] = tuple(_PRESETS)
"""Names that `network` knows."""


def network(name: str, base: IntentModelConfig | None = None) -> IntentModelConfig:
    """Make the configuration of a named model, with the sizes of `base`. Raises ValueError for an unknown name."""
    if name not in _PRESETS:
        raise ValueError(f"there is no sequence model {name!r}; there are {', '.join(NETWORKS)}")
    return (base or IntentModelConfig()).model_copy(update=_PRESETS[name])
