"""What stands between the features of tokens and the prediction of titles."""

from __future__ import annotations

from foretaste.models.bodies.contract import Body, Classes, Encoded, Sizes
from foretaste.models.bodies.hierarchy import HierarchyConfig

BodyConfig = HierarchyConfig

__all__ = ["Body", "BodyConfig", "Classes", "Encoded", "HierarchyConfig", "Sizes"]
