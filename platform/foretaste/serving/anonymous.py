"""Who does not consent is answered like somebody of whom nothing is known, and leaves nothing behind."""

from __future__ import annotations

from typing import TypeVar

from foretaste.contracts.tenants import SEPARATOR
from foretaste.contracts.wire import IntentRequest, RankRequest, RecommendRequest

R = TypeVar("R", RecommendRequest, RankRequest, IntentRequest)

NOBODY = SEPARATOR
"""A session that no client can name, so that nothing is ever known of it."""


def anonymous(request: R) -> R:
    """The same question of nobody; where it would be logged, it is not."""
    update = {"member_id": None, "session_id": NOBODY}
    return request.model_copy(update=update | ({} if isinstance(request, IntentRequest) else {"dry_run": True}))
