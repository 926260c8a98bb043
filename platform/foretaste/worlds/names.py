"""Names a person can read: each genre has its own adjectives, nouns and turns of phrase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WORDS: dict[str, tuple[str, str]] = {
    "action": (
        "Burning Crimson Fatal Iron Loaded Rapid Ruthless Savage Thunder Wrecking",
        "Ambush Bullet Convoy Fist Getaway Mercenary Overdrive Ricochet Strike Vendetta",
    ),
    "adventure": (
        "Distant Emerald Forbidden Lost Northern Restless Sunken Uncharted Wandering Windward",
        "Caravan Compass Expedition Island Map Monsoon Passage Summit Treasure Voyage",
    ),
    "animation": (
        "Bouncing Clockwork Curious Jolly Paper Pocket Polka Tiny Whirling Woolly",
        "Acorn Balloon Crayon Dragonfly Hedgehog Kite Lantern Penguin Puddle Teapot",
    ),
    "comedy": (
        "Accidental Awkward Botched Cheerful Clumsy Hopeless Overdue Second-Hand Spare Unlikely",
        "Bachelors Cousins Dentist Flatmates Groom Landlord Neighbors Plumber Reunion Understudy",
    ),
    "crime": (
        "Bitter Cold Concrete Crooked Dirty Harbor Midnight Smoking Stolen Unmarked",
        "Alibi Cartel Evidence Heist Informer Ledger Precinct Racket Syndicate Verdict",
    ),
    "documentary": (
        "Deep Essential Forgotten Living Measured True Uncovered Unwritten Vanishing Visible",
        "Archive Atlas Coastline Glacier Harvest Inventors Ocean Orchard River Witnesses",
    ),
    "drama": (
        "Broken Faithful Fragile Inherited Ordinary Patient Quiet Silent Unspoken Winter",
        "Bridge Daughters Estate Garden Harbor House Letters Promise Season Sonata",
    ),
    "family": (
        "Backyard Birthday Busy Golden Happy Muddy Rainy Sunny Treehouse Weekend",
        "Camp Ducklings Grandpa Holiday Kitchen Parade Picnic Puppy Recess Sleepover",
    ),
    "fantasy": (
        "Ancient Elven Enchanted Hollow Moonlit Runic Shattered Silver Thorned Wyvern",
        "Amulet Citadel Crown Grimoire Oath Prophecy Realm Sorcerer Throne Wanderer",
    ),
    "horror": (
        "Bleeding Buried Cursed Decaying Faceless Grinning Possessed Rotting Screaming Starving",
        "Asylum Cellar Coffin Doll Graveyard Hollow Mirror Ritual Scarecrow Shadow",
    ),
    "mystery": (
        "Blind Coded Disguised Hidden Locked Masked Missing Sealed Thirteenth Veiled",
        "Cipher Clue Detective Fingerprint Manuscript Portrait Riddle Secret Stranger Visitor",
    ),
    "romance": (
        "Autumn Beloved Candlelit Evening First Gentle Lingering Secretive Tender Velvet",
        "Embrace Heartbeat Kiss Love Rendezvous Rose Serenade Sweetheart Valentine Waltz",
    ),
    "science fiction": (
        "Binary Cobalt Cosmic Electric Galactic Infinite Neon Quantum Solar Synthetic",
        "Android Colony Horizon Nebula Orbit Paradox Protocol Satellite Signal Starship",
    ),
    "thriller": (
        "Dangerous Deadly Double Exposed Falling Hunted Narrow Razor Tense Vanished",
        "Conspiracy Countdown Deception Escape Fugitive Hostage Pursuit Surveillance Threshold Witness",
    ),
}

GENRES: tuple[str, ...] = tuple(sorted(_WORDS))

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "action": ("thriller", "crime", "adventure"),
    "adventure": ("action", "fantasy", "family"),
    "animation": ("family", "comedy", "fantasy"),
    "comedy": ("romance", "family", "animation"),
    "crime": ("thriller", "mystery", "drama"),
    "documentary": ("drama", "family", "crime"),
    "drama": ("romance", "crime", "mystery"),
    "family": ("animation", "comedy", "adventure"),
    "fantasy": ("adventure", "science fiction", "horror"),
    "horror": ("thriller", "mystery", "fantasy"),
    "mystery": ("crime", "thriller", "horror"),
    "romance": ("drama", "comedy", "fantasy"),
    "science fiction": ("action", "fantasy", "thriller"),
    "thriller": ("crime", "action", "mystery"),
}
"""Genres that a title of a genre may also have, the likeliest first."""

_TURNS = ("The {0} {1}", "{0} {1}", "{1} of the {0}", "A {0} {1}")
_TURN_ODDS = (0.5, 0.4, 0.02, 0.08)


def names(genre_N: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Name each title after its first genre; no name stands twice."""
    pool = {genre: [rng.permutation(100).tolist(), 0] for genre in GENRES}
    turn_N = rng.choice(len(_TURNS), size=len(genre_N), p=_TURN_ODDS)
    taken: dict[str, int] = {}
    found = []
    for genre, turn in zip(genre_N, turn_N, strict=True):
        order, used = pool[genre]
        pick = order[used % 100]
        pool[genre][1] = used + 1
        adjectives, nouns = (words.split() for words in _WORDS[genre])
        name = _TURNS[turn].format(adjectives[pick // 10], nouns[pick % 10])
        if name.startswith("A ") and name[2] in "AEIOU":
            name = f"An {name[2:]}"
        taken[name] = taken.get(name, 0) + 1
        found.append(name if taken[name] == 1 else f"{name} {taken[name]}")
    return found
