"""Train the tokenizer of the demo on its prompts, and write `tokenizer.json`."""

from collections.abc import Iterator, Sequence
from itertools import islice

from paths import TOKENIZER
from prompts import Film, Sampler, load_films
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SIZE = 4608
PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<|sid_begin|>", "<|sid_end|>"
CODEBOOK_SIZE = 256
PROMPTS = 100_000


def sid_tokens() -> list[str]:
    """The tokens of the codes of all levels, named as in OneRec."""
    return [f"<s_{level}_{code}>" for level in "abcd" for code in range(CODEBOOK_SIZE)]


def answer(sid: Sequence[int]) -> str:
    codes = "".join(f"<s_{level}_{code}>" for level, code in zip("abcd", sid, strict=True))
    return f"{BEGIN}{codes}{END}"


def texts(films: list[Film]) -> Iterator[str]:
    yield from (prompt for prompt, _ in islice(Sampler(films), PROMPTS))
    for film in films:
        yield film["title"]
        yield film["director"] or ""


def train(films: list[Film]) -> Tokenizer:
    """Train a byte-level BPE that ignores case and accents. Its first tokens are the special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    apostrophe = normalizers.Replace(Regex("\u2019"), "'")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), apostrophe]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[PAD, UNKNOWN, BEGIN, END, *sid_tokens()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(films), trainer)
    return tokenizer


def main() -> None:
    tokenizer = train(load_films())
    tokenizer.save(str(TOKENIZER), pretty=False)
    print(f"{tokenizer.get_vocab_size():,} tokens -> {TOKENIZER.name}, {TOKENIZER.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
