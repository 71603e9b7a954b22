"""Generate prompts from the facts of the films, and hold out some combinations of facts from training."""

import random
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow.parquet as pq
from paths import FILMS, SEED
from words import DECADES, ENDINGS, FRAMES, GENRES, LIKE_FRAMES, NATIONALITIES, PRAISE, TAKES_THE

Film = dict[str, Any]

# The facts that a prompt names, and the share of such prompts in percent.
KINDS: dict[tuple[str, ...], int] = {
    ("genre",): 15,
    ("genre", "genre"): 8,
    ("genre", "decade"): 18,
    ("genre", "year"): 5,
    ("genre", "country"): 13,
    ("genre", "language"): 3,
    ("genre", "country", "decade"): 5,
    ("genre", "praise"): 4,
    ("genre", "director"): 3,
    ("country",): 2,
    ("country", "decade"): 3,
    ("decade",): 2,
    ("year",): 2,
    ("praise",): 1,
    ("praise", "decade"): 2,
    ("director",): 6,
    ("like",): 8,
}
HELD_OUT_SHARE = 0.15
HELD_OUT_MIN_FILMS = 12  # the minimum number of films of a held-out pair


@dataclass(frozen=True)
class Request:
    """The facts that a prompt asks for."""

    genres: tuple[str, ...] = ()
    decade: int | None = None
    year: int | None = None
    country: str | None = None
    language: str | None = None
    director: str | None = None
    praise: str | None = None
    like: str | None = None

    def pairs(self) -> Iterator[tuple[str, int | str]]:
        """Its (genre, decade) and (genre, nationality) pairs."""
        decade = self.decade if self.year is None else decade_of(self.year)
        nation = NATIONALITIES.get(self.country or "")
        for genre in self.genres:
            yield from ((genre, fact) for fact in (decade, nation, self.language) if fact is not None)

    def met_by(self, film: Film) -> dict[str, bool]:
        """Whether a film has the requested genres, decade and country, and whether it has all of them."""
        facts = {"genre": set(self.genres) <= set(film["genres"])}
        if self.decade is not None:
            facts["decade"] = decade_of(film["year"]) == self.decade
        if self.country is not None:
            facts["country"] = self.country in film["countries"]
        return facts | {"every fact": all(facts.values())}


class Sampler:
    """An infinite iterator over (prompt, film) pairs for training."""

    def __init__(self, films: list[Film], seed: int = SEED) -> None:
        """Group the films by genre and by the first codes of their SIDs."""
        self.films = films
        self.rng = random.Random(seed)
        self.held_out = held_out_pairs(films)
        self.frames = split_frames(FRAMES)[0]
        self.like_frames = split_frames(LIKE_FRAMES)[0]
        by_genre: dict[str, list[Film]] = defaultdict(list)
        self.near: dict[tuple[int, ...], list[Film]] = defaultdict(list)
        for film in films:
            for genre in film["genres"]:
                by_genre[genre].append(film)
            for size in (1, 2):
                self.near[tuple(film["sid"][:size])].append(film)
        self.any_film = Urn(films, [popularity(film) for film in films])
        self.of_genre = {genre: Urn(group, [popularity(film) for film in group]) for genre, group in by_genre.items()}
        self.genre = Urn(list(by_genre), [len(group) ** 0.5 for group in by_genre.values()])
        self.kind = Urn(list(KINDS), list(KINDS.values()))

    def __iter__(self) -> Iterator[tuple[str, Film]]:
        """Draw requests, and skip those that no film meets or that are held out."""
        while True:
            film, request = self.draw()
            if request is not None and self.held_out.isdisjoint(request.pairs()):
                yield self.prompt(request), film

    def draw(self) -> tuple[Film, Request | None]:
        """Draw a film and a request for it; the request is None if the film does not have the facts."""
        kind = self.kind.draw(self.rng)
        if kind == ("like",):
            liked = self.any_film.draw(self.rng)
            return self.neighbour(liked), Request(like=liked["title"])
        if "genre" not in kind:
            film = self.any_film.draw(self.rng)
            return film, request_for(film, kind, None, self.rng)
        genre = self.genre.draw(self.rng)
        film = self.of_genre[genre].draw(self.rng)
        return film, request_for(film, kind, genre, self.rng)

    def neighbour(self, film: Film) -> Film:
        """Another film with the same first two codes, or one code; the film itself if there is none."""
        for size in (2, 1):
            others = [other for other in self.near[tuple(film["sid"][:size])] if other is not film]
            if others:
                return self.rng.choice(others)
        return film

    def prompt(self, request: Request) -> str:
        """Phrase the request with one of the frames for training."""
        if request.like is not None:
            return self.rng.choice(self.like_frames).format(title=request.like) + self.rng.choice(ENDINGS)
        return phrase(request, self.rng.choice(self.frames), self.rng)


class Urn:
    """Weighted random choice from a fixed list."""

    def __init__(self, values: Sequence[Any], weights: Sequence[float]) -> None:
        """Compute the cumulative weights."""
        self.values = values
        self.steps = list(accumulate(weights))

    def draw(self, rng: random.Random) -> Any:
        """Draw a value with a probability proportional to its weight."""
        return self.values[bisect(self.steps, rng.random() * self.steps[-1])]


def load_films() -> list[Film]:
    return pq.read_table(FILMS).to_pylist()


def popularity(film: Film) -> float:
    """The weight of a film: films with more reviews occur more often in prompts and answers."""
    return (1 + (film["reviews"] or 0)) ** 0.5


def decade_of(year: int) -> int:
    return year // 10 * 10


def praises(film: Film) -> list[str]:
    acclaimed = (film["tomatometer"] or 0) >= 85 and (film["reviews"] or 0) >= 20
    return ["oscar"] * (film["oscars"] > 0) + ["acclaimed"] * acclaimed


def request_for(film: Film, kind: tuple[str, ...], genre: str | None, rng: random.Random) -> Request | None:
    """A request of this kind that `film` meets; None if the film does not have the facts."""
    others = [other for other in film["genres"] if other != genre]
    options: dict[str, list[Any]] = {
        "decade": [decade_of(film["year"])],
        "year": [film["year"]],
        "country": [country for country in film["countries"] if country in NATIONALITIES],
        "language": [language for language in film["languages"] if language != "English"],
        "director": film["director"].split(", ") if film["director"] else [],
        "praise": praises(film),
    }
    wanted = [fact for fact in kind if fact != "genre"]
    if any(not options[fact] for fact in wanted) or (kind.count("genre") == 2 and not others):
        return None
    genres = (genre, rng.choice(others)) if kind.count("genre") == 2 else (genre,) * ("genre" in kind)
    return Request(genres=genres, **{fact: rng.choice(options[fact]) for fact in wanted})  # type: ignore[arg-type]


def phrase(request: Request, frame: str, rng: random.Random) -> str:
    """Phrase the request with a frame and randomly chosen words."""
    before, after = [], []
    if request.praise:
        adjectives, clauses = PRAISE[request.praise]
        _either(rng, before, rng.choice(adjectives), after, rng.choice(clauses))
    if request.decade:
        name = rng.choice(DECADES[request.decade])
        _either(rng, before, name, after, f"{rng.choice(('from', 'of', 'made in'))} the {name}")
    if request.year:
        after.append(f"{rng.choice(('from', 'released in', 'of', 'made in'))} {request.year}")
    if request.country:
        the = "the " if request.country in TAKES_THE else ""
        adjective = NATIONALITIES[request.country]
        _either(rng, before, adjective, after, f"{rng.choice(('from', 'made in'))} {the}{request.country}", 0.8)
    if request.language:
        _either(rng, before, f"{request.language}-language", after, f"in {request.language}")
    if request.director:
        after.append(f"{rng.choice(('by', 'directed by', 'from director'))} {request.director}")
    rng.shuffle(after)
    words = [*before, noun(request.genres, rng)]
    one, many = (" ".join([*head, *after]) for head in (words, [*words[:-1], plural(words[-1])]))
    return frame.format(a=f"{article(one)} {one}", one=one, many=many) + rng.choice(ENDINGS)


def noun(genres: tuple[str, ...], rng: random.Random) -> str:
    """The genres as one noun, for example "western", "science fiction film" or "romantic comedy"."""
    plain = rng.choice(("film", "movie"))
    if not genres:
        return plain
    *first, last = genres
    adjectives, nouns = GENRES[last]
    head = rng.choice((*nouns, f"{rng.choice(adjectives)} {plain}"))
    return " ".join([*(rng.choice(GENRES[genre][0]) for genre in first), head])


def article(words: str) -> str:
    return "an" if words[0].lower() in "aeio8" else "a"


def plural(words: str) -> str:
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def split_frames(frames: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The frames for training, and the held-out frames, one in six."""
    held_out = set(random.Random(SEED).sample(frames, len(frames) // 6))
    return [frame for frame in frames if frame not in held_out], [frame for frame in frames if frame in held_out]


def held_out_pairs(films: list[Film]) -> set[tuple[str, int | str]]:
    """The (genre, decade) and (genre, nationality) pairs that are held out from training."""
    counts: Counter[tuple[str, int | str]] = Counter()
    for film in films:
        nations = [NATIONALITIES[country] for country in film["countries"] if country in NATIONALITIES]
        counts.update((genre, fact) for genre in film["genres"] for fact in (decade_of(film["year"]), *nations))
    pairs = sorted((pair for pair, count in counts.items() if count >= HELD_OUT_MIN_FILMS), key=str)
    return set(random.Random(SEED).sample(pairs, round(HELD_OUT_SHARE * len(pairs))))


def _either(
    rng: random.Random, before: list[str], word: str, after: list[str], clause: str, share_before: float = 0.5
) -> None:
    """Place a fact before the noun or after it."""
    if rng.random() < share_before:
        before.append(word)
    else:
        after.append(clause)


def main() -> None:
    films = load_films()
    sampler = Sampler(films)
    for (prompt, film), _ in zip(sampler, range(20), strict=False):
        print(f"{prompt}  ->  {film['title']} ({film['year']}), {', '.join(film['genres'])}")
    print(f"{len(sampler.held_out)} pairs and {len(split_frames(FRAMES)[1])} frames held out")


if __name__ == "__main__":
    main()
