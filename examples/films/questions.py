"""The prompts of the evaluation: facts and phrasings that are not in the training data."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from paths import SEED
from prompts import Film, Request, held_out_pairs, phrase, split_frames
from words import FRAMES, GENRES, NATIONALITIES

PHRASINGS = 3  # the number of prompts for each request and kind of frame
COUNTRIES = {nation: country for country, nation in NATIONALITIES.items()}


@dataclass(frozen=True)
class Question:
    """A prompt, the facts it asks for, and which part of it is not in the training data."""

    prompt: str
    request: Request
    unseen: str


def questions(films: list[Film]) -> Iterator[Question]:
    """Each held-out pair with seen and held-out frames, and each genre with held-out frames."""
    rng = random.Random(SEED)
    seen, unseen = split_frames(FRAMES)
    for pair in sorted(held_out_pairs(films), key=str):
        for what, frames in (("pair", seen), ("pair and phrasing", unseen)):
            yield from _phrasings(request_of(*pair), what, frames, rng)
    for genre in GENRES:
        yield from _phrasings(Request((genre,)), "phrasing", unseen, rng)


def request_of(genre: str, fact: int | str) -> Request:
    """The request of a held-out pair of a genre and a decade or nationality."""
    return Request((genre,), decade=fact) if isinstance(fact, int) else Request((genre,), country=COUNTRIES[fact])


def _phrasings(request: Request, unseen: str, frames: list[str], rng: random.Random) -> Iterator[Question]:
    for frame in rng.sample(frames, PHRASINGS):
        yield Question(phrase(request, frame, rng), request, unseen)
