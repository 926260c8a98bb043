"""Who is answered by which release: arms with shares of members, kept to by a keyed hash.

An arm has ranges of the numbers 0 to 9,999; a member has the number that a keyed hash gives. A share that grows takes
numbers from nobody but the rest, and one that shrinks gives them back to it, so that no other member changes sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

PLACES = 10_000
"""Numbers that are shared out: the smallest share is one of them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A share of the members that a release answers."""

    name: str
    release: str
    ranges: tuple[tuple[int, int], ...]  # from, until (not included); of PLACES, in order

    @property
    def places(self) -> int:
        """How many numbers it has."""
        return sum(until - since for since, until in self.ranges)

    @property
    def share(self) -> float:
        """Share of the members, 0..1."""
        return self.places / PLACES


class ShareError(ValueError):
    """A share or an arm that there cannot be; `field` says which of the two is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def number_of(unit: str, salt: str) -> int:
    """Number of a member, or of a guest's session, in 0 to 9,999; `salt` is hexadecimal and the key of the hash."""
    digest = hashlib.blake2b(unit.encode(), key=bytes.fromhex(salt), digest_size=8).digest()
    return int.from_bytes(digest, "big") * PLACES >> 64


def arm_of(unit: str, arms: Sequence[Arm], *, salt: str) -> Arm | None:
    """The arm of a member; None for the rest."""
    number = number_of(unit, salt)
    for arm in arms:
        if any(since <= number < until for since, until in arm.ranges):
            return arm
    return None


def with_share(arms: Sequence[Arm], name: str, release: str, share: float) -> tuple[Arm, ...]:
    """Give an arm a release and a share of the members, 0 < share <= 1; who is in another arm stays there.

    Raises ShareError for a share that is none, or where the others leave less.
    """
    places = round(share * PLACES)
    if not 0 < places <= PLACES:
        raise ShareError("share", f"wanted a share of more than 0 and at most 1, in steps of {1 / PLACES}, got {share}")
    others = [arm for arm in arms if arm.name != name]
    free = PLACES - sum(arm.places for arm in others)
    if places > free:
        taken = ", ".join(f"{arm.name} {arm.share:g}" for arm in others)
        raise ShareError("share", f"a share of {share:g} for {name} is more than the other arms leave ({taken})")
    known = next((arm for arm in arms if arm.name == name), Arm(name, release, ()))
    numbers = [number for since, until in known.ranges for number in range(since, until)]
    used = {number for arm in arms for since, until in arm.ranges for number in range(since, until)}
    numbers += [number for number in range(PLACES) if number not in used]
    made = replace(known, release=release, ranges=_ranges(numbers[:places]))
    return tuple(made if arm.name == name else arm for arm in arms) + (() if known in arms else (made,))


def _ranges(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)
