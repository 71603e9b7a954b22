"""Synthetic histories of users over the films, for the tutorial: no person watched these films.

The 600 films are, of each decade from 1960 on, the 100 with the most reviews. Those of 2014 are new: no history has
them. Each of 3,000 users likes two to four genres and one decade. A user watches 2 to 60 films of the years before
2014, no film twice. The next film is drawn at random, with a weight that is the product of

- the square root of the number of its reviews,
- 1 if it has the genre that the user is in the mood for, otherwise 0.01; after a film, the mood changes with
  probability 0.2,
- 0.35 for each decade between its decade and the one that the user likes,
- 20 if its director also directed one of the last three films.

Between two films pass 0 to 60 days, so that some films of a user have the same date.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from paths import FILMS, HISTORIES, SEED

USERS, LATEST = 3_000, 2014
FIRST_DAY, LAST_DAY = dt.date(2014, 1, 1), dt.date(2014, 12, 31)
PER_DECADE, MIN_FILMS, MAX_FILMS = 100, 2, 60
MOODS = 25  # genres of at least so many films
POPULARITY, OTHER_GENRE, PER_DECADE_AWAY, SAME_DIRECTOR, NEW_MOOD = 0.5, 0.01, 0.35, 20.0, 0.2


def chosen_films(films: pa.Table) -> list[dict]:
    """The 600 films, by id."""
    rows = [film for film in films.to_pylist() if film["genres"] and film["countries"] and film["director"]]
    rows = sorted((film for film in rows if film["reviews"]), key=lambda film: (-film["reviews"], film["item_id"]))
    decades = {decade: [film for film in rows if film["year"] // 10 * 10 == decade] for decade in range(1960, 2020, 10)}
    return sorted((film for every in decades.values() for film in every[:PER_DECADE]), key=lambda film: film["item_id"])


def histories(films: list[dict], seed: int = SEED) -> pa.Table:
    """The histories: user, item_id, timestamp; by user and time."""
    random = np.random.default_rng(seed)
    old = [film for film in films if film["year"] < LATEST]
    genres = sorted({genre for film in old for genre in film["genres"]})
    has_genre = np.array([[genre in film["genres"] for genre in genres] for film in old])
    liked_genres = np.flatnonzero(has_genre.sum(axis=0) >= MOODS)
    decades = np.array([film["year"] // 10 for film in old])
    directors = np.unique([film["director"] for film in old], return_inverse=True)[1]
    popularity = np.array([film["reviews"] for film in old], float) ** POPULARITY
    users, items, days = [], [], []
    for user in range(1, USERS + 1):
        count = int(np.clip(random.lognormal(2.2, 0.7), MIN_FILMS, MAX_FILMS))
        genres_of_user = random.choice(liked_genres, random.integers(2, 5), replace=False)
        base = popularity * PER_DECADE_AWAY ** abs(decades - random.choice(np.unique(decades)))
        mood, watched = random.choice(genres_of_user), []
        for _ in range(count):
            if random.random() < NEW_MOOD:
                mood = random.choice(genres_of_user)
            weights = base * np.where(has_genre[:, mood], 1, OTHER_GENRE)
            weights = weights * np.where(np.isin(directors, directors[watched[-3:]]), SAME_DIRECTOR, 1)
            weights[watched] = 0
            watched.append(int(random.choice(len(old), p=weights / weights.sum())))
        gaps = random.integers(0, 61, count)
        last = random.integers(0, (LAST_DAY - FIRST_DAY).days + 1)
        users += [user] * count
        items += [old[film]["item_id"] for film in watched]
        days += [LAST_DAY - dt.timedelta(int(last + gaps[place + 1 :].sum())) for place in range(count)]
    columns = {"user": pa.array(users, pa.int32()), "item_id": pa.array(items, pa.int64()), "timestamp": days}
    return pa.table(columns)


def main() -> None:
    """Write the histories into the package."""
    table = histories(chosen_films(pq.read_table(FILMS)))
    pq.write_table(table, HISTORIES, compression="zstd")
    print(f"{HISTORIES}: {len(table):,} rows, {HISTORIES.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
