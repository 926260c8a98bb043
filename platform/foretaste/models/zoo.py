"""Sequence models by name, each as its source describes it where the platform's data allow that."""

from __future__ import annotations

from typing import Any

from foretaste.models.bodies import (
    ForetasteConfig,
    HierarchyConfig,
    HstuConfig,
    LigrConfig,
    RecurrentConfig,
    TransActConfig,
    TransformerConfig,
)
from foretaste.models.network import IntentModelConfig

WEEK_HOURS = 168.0
_IDS: dict[str, Any] = {"inputs": "ids", "intents": (), "learn_first": False}

_PRESETS: dict[str, dict[str, Any]] = {
    "lstm": {"body": RecurrentConfig(cell="lstm")},
    "gru4rec": {"body": RecurrentConfig(cell="gru")},
    "bilstm": {"body": RecurrentConfig(cell="lstm", reads="both", layers=1), "hide_share": 0.6},
    "transformer": {"body": TransformerConfig()},
    "sasrec": {"body": TransformerConfig(), **_IDS},
    "bert4rec": {"body": TransformerConfig(reads="both"), "hide_share": 0.4, **_IDS},
    "transact": {"body": TransActConfig(newest=3), "max_length": 100},
    "hstu": {"body": HstuConfig(), **_IDS},
    "esasrec": {"body": LigrConfig(), "full_softmax_titles": 1, "num_negatives": 256, **_IDS},
    "v0": {"body": HierarchyConfig(intents="none")},
    "v1": {"body": HierarchyConfig(intents="flat")},
    "v2": {"body": HierarchyConfig()},
    "v3": {"body": HierarchyConfig(short_term_hours=WEEK_HOURS)},
    "foretaste-v0": {"body": ForetasteConfig(intents="none", views_hours=(), session_view=False)},
    "foretaste-v1": {"body": ForetasteConfig(intents="flat", views_hours=(), session_view=False)},
    "foretaste-v2": {"body": ForetasteConfig(views_hours=(), session_view=False)},
    "foretaste": {"body": ForetasteConfig()},
}
"""What others published: up to TransAct with all features and a head for each intent beside the titles', as in table 1
of IntentRec; SASRec, BERT4Rec, HSTU and eSASRec with ids (HSTU with times too) and nothing but titles to predict. What
the sources leave open or does not carry over (recurrent layers, outputs that TransAct reads one by one: 10 there; the
share that is hidden) was chosen on validation rows of the synthetic service. Then
IntentRec without intents, with flat heads, with the hierarchy, with the short-term view too (Oh et al., arXiv
2408.05353); then the same four steps of ours, in which predicted classes also raise the titles that have them."""

NETWORKS: tuple[str, ...] = tuple(_PRESETS)
"""Names that `network` knows."""


def network(name: str, base: IntentModelConfig | None = None) -> IntentModelConfig:
    """Make the configuration of a named model, with the sizes of `base`. Raises ValueError for an unknown name."""
    if name not in _PRESETS:
        raise ValueError(f"there is no sequence model {name!r}; there are {', '.join(NETWORKS)}")
    base = base or IntentModelConfig()
    preset = _PRESETS[name]
    shorter = {"max_length": min(preset["max_length"], base.max_length)} if "max_length" in preset else {}
    return base.model_copy(update=preset | shorter)
