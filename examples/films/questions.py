"""The evaluation's prompts: facts and phrasings that training never saw."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from paths import SEED
from prompts import Film, Request, held_out_pairs, phrase, split_frames
from words import FRAMES, GENRES, NATIONALITIES

SAYINGS = 3  # prompts for each request and kind of frame
COUNTRIES = {nation: country for country, nation in NATIONALITIES.items()}


@dataclass(frozen=True)
class Question:
    """A prompt, the facts it asks for, and what about it training never saw."""

    prompt: str
    request: Request
    unseen: str


def questions(films: list[Film]) -> Iterator[Question]:
    """Each held-out pair in frames of both kinds, and each genre in the held-out frames."""
    rng = random.Random(SEED)
    seen, unseen = split_frames(FRAMES)
    for pair in sorted(held_out_pairs(films), key=str):
        for what, frames in (("pair", seen), ("pair and phrasing", unseen)):
            yield from _sayings(request_of(*pair), what, frames, rng)
    for genre in GENRES:
        yield from _sayings(Request((genre,)), "phrasing", unseen, rng)


def request_of(genre: str, fact: int | str) -> Request:
    """The request for a held-out pair, whose fact is a decade or a nationality."""
    return Request((genre,), decade=fact) if isinstance(fact, int) else Request((genre,), country=COUNTRIES[fact])


def _sayings(request: Request, unseen: str, frames: list[str], rng: random.Random) -> Iterator[Question]:
    for frame in rng.sample(frames, SAYINGS):
        yield Question(phrase(request, frame, rng), request, unseen)
