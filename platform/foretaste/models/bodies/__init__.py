"""What stands between the features of tokens and the prediction of titles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretaste.models.bodies.contract import Body, Classes, Encoded, OwnHeads, Sizes, begin
from foretaste.models.bodies.foretaste import ForetasteConfig
from foretaste.models.bodies.hierarchy import HierarchyConfig
from foretaste.models.bodies.hstu import HstuConfig
from foretaste.models.bodies.ligr import LigrConfig
from foretaste.models.bodies.recurrent import RecurrentConfig
from foretaste.models.bodies.transact import TransActConfig
from foretaste.models.bodies.transformer import TransformerConfig

BodyConfig = Annotated[
    ForetasteConfig | HierarchyConfig | HstuConfig | LigrConfig | RecurrentConfig | TransActConfig | TransformerConfig,
    Field(discriminator="kind"),
]
"""Of any body; `kind` says which."""

__all__ = [
    "Body",
    "BodyConfig",
    "Classes",
    "Encoded",
    "ForetasteConfig",
    "HierarchyConfig",
    "HstuConfig",
    "LigrConfig",
    "OwnHeads",
    "RecurrentConfig",
    "Sizes",
    "TransActConfig",
    "TransformerConfig",
    "begin",
]
