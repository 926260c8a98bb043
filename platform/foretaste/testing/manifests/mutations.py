"""Planted faults: a fault is data, and says which check has to catch it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.testing.manifests.objects import Manifests


class Mutation(Frozen):
    """One change to one rendered object."""

    name: str = Field(description="what an operator would have done")
    object: str = Field(pattern=r"^\w+/[\w.-]+$", description="Kind/name")
    path: str = Field(
        description="keys by / (~1 is a / in a key), a list's places by number; - appends; of drop: what is removed"
    )
    value: Any = Field(None, description="what is put there")
    drop: bool = Field(False, description="remove what is there")
    text: tuple[str, str] | None = Field(None, description="in a text: what is replaced by what")
    caught_by: str = Field(description="name of the check")
    says: str = Field("", description="words of the finding, where the check would find something else, too")


def mutated(manifests: Manifests, mutation: Mutation) -> Manifests:
    """A copy with the fault in it. Raises ValueError where the fault changes nothing, so that no test passes idly."""
    result = manifests.copied()
    kind, _, name = mutation.object.partition("/")
    target = result.named(kind, name)
    if mutation.path == "" and mutation.drop:
        result.objects.remove(target)
        return result
    *way, last = (key.replace("~1", "/") for key in mutation.path.split("/"))
    place: Any = target
    for key in way:
        place = place[int(key)] if isinstance(place, list) else place[key]
    before = None if isinstance(place, list) and last == "-" else _at(place, last)
    if mutation.drop:
        del place[int(last) if isinstance(place, list) else last]
        return result
    value = str(before).replace(*mutation.text) if mutation.text else mutation.value
    if value == before:
        raise ValueError(f"{mutation.name}: {mutation.object} {mutation.path} is {before!r} already")
    if isinstance(place, list) and last == "-":
        place.append(value)
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return result


def _at(place: Any, key: str) -> Any:
    return place[int(key)] if isinstance(place, list) else place.get(key)
