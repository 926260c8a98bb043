"""The words of queries and names, hashed to places: the same for what was asked and for what could be meant."""

from __future__ import annotations

import re
import zlib

TOKEN_PLACES = 64

_WORD = re.compile(r"\w+")


def hashed(text: str) -> list[int]:
    """Count the words of a text, whatever their case, at TOKEN_PLACES places that their bytes say."""
    counts = [0] * TOKEN_PLACES
    for word in _WORD.findall(text.casefold()):
        counts[zlib.crc32(word.encode("utf-8", "surrogatepass")) % TOKEN_PLACES] += 1
    return counts
