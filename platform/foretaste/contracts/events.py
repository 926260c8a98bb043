"""What a member can do, and who did it."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What a member did; the order is the order of codes in arrays (see `ACTION_CODES`)."""

    IMPRESSION = "impression"
    HOVER = "hover"
    BROWSE = "browse"
    SEARCH = "search"
    MESSAGE_OPEN = "message_open"
    REMOVE = "remove"
    DETAIL = "detail"
    FOLLOW = "follow"
    COMMENT = "comment"
    ADD_TO_LIST = "add_to_list"
    RATE = "rate"
    STOP = "stop"
    PLAY = "play"
    COMPLETE = "complete"
    THUMB_UP = "thumb_up"
    THUMB_DOWN = "thumb_down"


ACTIONS: tuple[str, ...] = tuple(action.value for action in Action)
ACTION_CODES: dict[str, int] = {action: code for code, action in enumerate(ACTIONS)}

ENGAGEMENT: frozenset[str] = frozenset(ACTIONS[ACTION_CODES[Action.DETAIL] :])
"""Actions that make an interaction with a title; among them a higher code is a stronger statement."""

PLAY_LIKE: frozenset[str] = frozenset({Action.RATE, Action.STOP, Action.PLAY, Action.COMPLETE, Action.THUMB_UP})
"""Interactions that count as choosing a title, in a log that has any of them."""

NEEDS_TITLE: frozenset[str] = ENGAGEMENT | {Action.IMPRESSION, Action.HOVER, Action.REMOVE}

PASSIVE: frozenset[str] = frozenset({Action.IMPRESSION})
"""What happens to a member without their doing: no part of what an answer reads of them."""

ENTRIES: tuple[str, ...] = ("browse", "search", "message")
"""How a member came to a title; the order is the order of codes in arrays."""
WAYS: dict[str, str] = {Action.BROWSE: "browse", Action.SEARCH: "search", Action.MESSAGE_OPEN: "message"}
"""Actions after which, in the same session, titles are come to in another way."""


GUEST = "guest:"


def actor_id(member_id: str | None, session_id: str | None) -> str:
    """Name whose history an event belongs to: the member, or a guest for the time of one session.

    Raises ValueError where both are missing.
    """
    if member_id is not None:
        return member_id
    if session_id is None:
        raise ValueError("an event needs member_id or session_id; both are null")
    return GUEST + session_id
