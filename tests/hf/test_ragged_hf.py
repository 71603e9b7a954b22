"""Ragged SIDs with models of transformers equal generate() with an end token, teacher forcing, and a mask."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ragged import Ragged

import hedgerow as hr
from hedgerow.decode.oracle import oracle_search

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration  # noqa: E402

from hedgerow.hf import CatalogLogitsProcessor, Retriever, generate  # noqa: E402

VOCABULARY, END, BEGIN = 60, 2, 50
MADE = Ragged([(3,), (3, 1), (3, 1, 4), (0, 2), (0, 2, 0), (0, 2, 0, 1), (1, 0, 0, 0), (2, 1)], (4, 3, 5, 2))
# Codes of all levels share tokens 10 to 14.
TABLES = tuple(np.arange(size) + 10 for size in MADE.sizes)
TOKENS = hr.TokenMap(TABLES, end=(END,))
INDEX = hr.build_index(MADE.catalog)
PROMPT = [20, 31, 7, 44, 9]


@cache
def qwen3() -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=0.4,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).eval()


@cache
def t5() -> Any:
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_ff=32,
        d_kv=16,
        num_layers=1,
        num_heads=2,
        eos_token_id=END,
        pad_token_id=0,
        initializer_factor=6.0,
    )
    # Pyright knows the parameters of T5 alone, and not those of every configuration.
    config.decoder_start_token_id, config.tie_word_embeddings = 0, False
    return T5ForConditionalGeneration(config).eval()


def tokens_of(sid) -> tuple[int, ...]:
    return tuple(int(TABLES[level][code]) for level, code in enumerate(sid))


def scores_of(results: hr.Results) -> dict[tuple[int, ...], float]:
    return {tuple(row["sid"]): row["score"] for row in results.to_pylist()}


def log_probs(model, ids) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()


def oracle(normalize: str, beam_width: int) -> dict[tuple[int, ...], float]:
    """Beam search by the oracle, over whole sequences; the end token is scored like a code."""

    def row(prefix):
        return log_probs(qwen3(), [*PROMPT, *tokens_of(prefix)])

    def logits_of(prefix):
        return row(prefix)[TABLES[len(prefix)]].tolist()

    found = oracle_search(
        MADE.sids,
        logits_of,
        4,
        beam_width,
        None if normalize == "vocab" else normalize,  # type: ignore[arg-type]
        end_logit_of=lambda prefix: row(prefix)[END],
    )
    return {sid: score + last_end(sid, normalize) for sid, score in found}


def last_end(sid: tuple[int, ...], normalize: str) -> float:
    """The log-probability of the end after a SID of the full length: nothing else could follow but text."""
    return float(log_probs(qwen3(), [*PROMPT, *tokens_of(sid)])[END]) if normalize == "vocab" and len(sid) == 4 else 0.0


def assert_same_scores(found, expected):
    assert found.keys() == expected.keys()
    for sid, score in expected.items():
        assert found[sid] == pytest.approx(score, rel=1e-6, abs=1e-4)


def may_follow(sids, tables, end: int, rest: tuple[int, ...]) -> set[int] | None:
    """The tokens that may follow the tokens of an incomplete SID, from the set of SIDs; None: text may."""
    written = {tuple(int(tables[at][code]) for at, code in enumerate(sid)) for sid in sids}
    allowed = {sid[len(rest)] for sid in written if len(sid) > len(rest) and sid[: len(rest)] == rest}
    return allowed | {end} if rest in written else allowed or None


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
@pytest.mark.parametrize("decoding", ["tree", "plain"])
@pytest.mark.parametrize("beam_width", [2, 4, 20])
def test_retriever_equals_the_oracle(normalize, decoding, beam_width):
    retriever = Retriever(qwen3(), INDEX, TOKENS, normalize=normalize, decoding=decoding)
    results = retriever.retrieve(PROMPT, beam_width=beam_width, k=None)[0]
    assert_same_scores(scores_of(results), oracle(normalize, beam_width))
    assert (np.diff(results.scores) <= 0).all()


def generated(model, processors=None, max_new_tokens=4, **options) -> dict[tuple[int, ...], float]:
    """All SIDs that generate() finds, with their scores. There are as many beams as SIDs, so that none is cut."""
    ids, decodes = torch.tensor([PROMPT]), model.config.is_encoder_decoder
    before = 1 if decodes else len(PROMPT)

    def allowed(_, row):
        return sorted(may_follow(MADE.sids, TABLES, END, tuple(row[before:].tolist())) or {END})

    beams = len(MADE.sids)
    constraint = {"logits_processor": processors} if processors else {"prefix_allowed_tokens_fn": allowed}
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=max_new_tokens,
        eos_token_id=END,
        pad_token_id=0,
        early_stopping="never",
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **constraint,
        **({"length_penalty": 0.0} | options),
    )
    found = {}
    for row, score in zip(made.sequences[:, before:].tolist(), made.sequences_scores.tolist(), strict=True):
        written = row[: row.index(END)] if END in row else [token for token in row if token]
        found[tuple(token - 10 for token in written)] = score
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("model", [qwen3, t5])
def test_retriever_equals_generate(model, length_penalty):
    """The end of the longest SIDs has a score, too, and its place in the length."""
    retriever = Retriever(model(), INDEX, TOKENS, normalize="vocab", length_penalty=length_penalty)
    assert retriever.length_penalty == length_penalty
    found = scores_of(retriever.retrieve(PROMPT, beam_width=len(MADE.sids), k=None)[0])
    expected = generated(model(), max_new_tokens=5, length_penalty=length_penalty)
    assert set(found) == set(MADE.sids)
    assert list(found) == list(expected)
    assert_same_scores(found, expected)
    for row, sid in enumerate(MADE.sids):
        explanation = retriever.explain(PROMPT, row)
        assert (explanation.outcome, explanation.rank) == ("returned", 1 + list(found).index(sid))
        assert explanation.score == pytest.approx(found[sid], abs=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
@pytest.mark.parametrize("model", [qwen3, t5])
def test_custom_generate_writes_ends_and_padding(model, length_penalty):
    retriever = Retriever(model(), INDEX, TOKENS, normalize="vocab")
    options = {"num_beams": len(MADE.sids), "num_return_sequences": len(MADE.sids), "length_penalty": length_penalty}
    made = model().generate(
        torch.tensor([PROMPT]),
        custom_generate=generate,
        retriever=retriever,
        max_new_tokens=5,
        eos_token_id=END,
        pad_token_id=0,
        return_dict_in_generate=True,
        **options,
    )
    before = 1 if model().config.is_encoder_decoder else len(PROMPT)
    rows = [tuple(token - 10 for token in row[: row.index(END)]) for row in made.sequences[:, before:].tolist()]
    assert all(set(row[row.index(END) + 1 :]) <= {0} for row in made.sequences[:, before:].tolist())
    expected = generated(model(), max_new_tokens=5, length_penalty=length_penalty)
    assert rows == list(expected)
    assert_same_scores(dict(zip(rows, made.sequences_scores.tolist(), strict=True)), expected)


@pytest.mark.parametrize("normalize", ["codes", "allowed"])
def test_length_penalty_divides_by_codes_and_end(normalize):
    sums, means = (
        scores_of(Retriever(qwen3(), INDEX, TOKENS, normalize=normalize, length_penalty=penalty).retrieve(PROMPT)[0])
        for penalty in (0, 1)
    )
    expected = {sid: score / (len(sid) + 1) for sid, score in sums.items()}
    assert list(means) == sorted(expected, key=lambda sid: -expected[sid])
    assert_same_scores(means, expected)


def test_free_search_scores_the_last_end():
    """Of all SIDs of one or two codes, an unconstrained search gives the same as `retrieve`."""
    sids = [(code,) for code in range(4)] + [(first, second) for first in range(4) for second in range(3)]
    every = hr.build_index(hr.Catalog(sids, codebook_sizes=[4, 3], ragged=True))
    retriever = Retriever(qwen3(), every, hr.TokenMap(TABLES[:2], end=(END,)), normalize="vocab", length_penalty=1.0)
    free, scores = retriever.free_search(PROMPT, beam_width=16)
    results = retriever.retrieve(PROMPT, beam_width=16, k=None)[0]
    assert [tuple(code for code in sid if code >= 0) for sid in free[0].tolist()] == list(scores_of(results))
    np.testing.assert_allclose(scores[0].numpy(), results.scores, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, None])
def test_rejects_length_penalties_that_are_no_numbers(value):
    with pytest.raises(hr.ArgumentError, match="length_penalty must be a finite number"):
        Retriever(qwen3(), INDEX, TOKENS, length_penalty=value)


@pytest.mark.parametrize("model", [qwen3, t5])
def test_the_processor_in_beam_search_equals_a_mask(model):
    before = 1 if model is t5 else len(PROMPT)
    processor = CatalogLogitsProcessor(INDEX, TOKENS, prompt_length=before)
    found = generated(model(), [processor])
    assert set(found) == set(MADE.sids)
    assert_same_scores(found, generated(model()))


@pytest.mark.parametrize("model", [qwen3, t5])
def test_sampling_writes_sids_one_after_another(model):
    before = 1 if model is t5 else len(PROMPT)
    processor = CatalogLogitsProcessor(INDEX, TOKENS, prompt_length=before)
    torch.manual_seed(3)
    ids = torch.tensor([PROMPT] * 8)
    # END ends a SID and not the row.
    rows = model().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=30,
        do_sample=True,
        top_k=0,
        temperature=1e3,
        eos_token_id=59,
        pad_token_id=0,
        logits_processor=[processor],
    )
    written, known = set(), {tokens_of(sid) for sid in MADE.sids}
    for row in rows[:, before:].tolist():
        parts = " ".join(map(str, row)).split(f" {END} ")
        sids = [tuple(map(int, part.split())) for part in parts[:-1]]
        assert known.issuperset(sids)
        written.update(map(len, sids))
    assert written == {1, 2, 3, 4}


@pytest.mark.parametrize("codes_in_text", [False, True])
def test_the_processor_within_text_equals_a_mask(codes_in_text):
    rng = np.random.default_rng(0)
    tokens = hr.TokenMap(TABLES, begin=(BEGIN, BEGIN + 1), end=(END,))
    processor = CatalogLogitsProcessor(INDEX, tokens, codes_in_text=codes_in_text)
    text = set(range(VOCABULARY)) - (set() if codes_in_text else {int(token) for table in TABLES for token in table})
    seen = set()
    for length in (1, 2, 3, 5, 8, 12):
        rows = []
        for _ in range(60):
            ids = rng.integers(0, VOCABULARY, 3).tolist()
            while len(ids) < 20:
                sid = tokens_of(MADE.sids[rng.integers(len(MADE.sids))])
                ids += [BEGIN, BEGIN + 1, *sid[: rng.integers(0, 5)], *[END] * rng.integers(0, 3)]
                ids += rng.integers(0, VOCABULARY, rng.integers(0, 2)).tolist()
            cut = rng.integers(length, len(ids) + 1)
            rows.append(ids[cut - length : cut])
        scores = torch.randn(len(rows), VOCABULARY)
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for at, ids in enumerate(rows):
            begun = [place for place, pair in enumerate(pairwise(ids)) if pair == (BEGIN, BEGIN + 1)]
            rest = tuple(ids[begun[-1] + 2 :]) if begun else None
            wanted = None if rest is None else may_follow(MADE.sids, TABLES, END, rest)
            seen.add(None if wanted is None or rest is None else (len(rest), END in wanted))
            allowed[at, sorted(text if wanted is None else wanted)] = True
        expected = torch.where(allowed, scores, -torch.inf)
        assert (processor(torch.tensor(rows), scores) == expected).all()
    assert seen >= {None, (0, False), (1, True), (1, False), (2, True), (3, True), (3, False), (4, True)}


def test_model_with_more_codes_than_the_catalog():
    """Unused codes and the end count in the softmax; the first unused code is not the end."""
    tables = tuple(np.arange(size + 3) + 10 for size in MADE.sizes)
    tokens = hr.TokenMap(tables, end=(END,))
    found = scores_of(Retriever(qwen3(), INDEX, tokens).retrieve(PROMPT, beam_width=20, k=None)[0])
    for sid in MADE.sids:
        score = 0.0
        for level in range(min(len(sid) + 1, 4)):
            row = log_probs(qwen3(), [*PROMPT, *tokens_of(sid[:level])])
            over = np.logaddexp.reduce(row[[*tables[level], *[END] * (level > 0)]])
            score += row[tables[level][sid[level]] if level < len(sid) else END] - over
        assert found[sid] == pytest.approx(score, rel=1e-6, abs=1e-4)
    delimited = hr.TokenMap(tables, begin=(BEGIN,), end=(END,))
    processor = CatalogLogitsProcessor(INDEX, delimited)
    unused = int(tables[1][MADE.sizes[1]])
    kept = processor(torch.tensor([[BEGIN, 13, unused]]), torch.zeros(1, VOCABULARY)) == 0
    assert kept[0, 30]


def test_codes_are_the_vocabulary():
    """Entity names: the end token is a code of every level, which no name uses."""
    names = Ragged([(7, 8), (7, 8, 9), (30,), (7, 31)], (VOCABULARY,) * 3)
    tokens = hr.TokenMap.from_offsets([0] * 3, VOCABULARY, end=END)
    index = hr.build_index(names.catalog)
    found = scores_of(Retriever(qwen3(), index, tokens).retrieve(PROMPT, beam_width=9, k=None)[0])
    assert set(found) == set(names.sids)
    for sid in names.sids:
        score = sum(
            log_probs(qwen3(), [*PROMPT, *sid[:at]])[token] for at, token in enumerate([*sid, END][:3])
        ) + float(-np.log1p(-np.exp(log_probs(qwen3(), PROMPT)[END])))  # no SID ends before its first code
        assert found[sid] == pytest.approx(score, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (hr.TokenMap(TABLES), ["ragged", "exactly one end token", "end=()", "eos_token_id"]),
        (hr.TokenMap(TABLES, end=(2, 3)), ["exactly one end token", "end=(2, 3)"]),
        (hr.TokenMap(TABLES, end=(11,)), ["level 0", "token 11", "code 1"]),
        (hr.TokenMap(TABLES[:2], end=(END,)), ["4 codes", "2 levels"]),
        (
            hr.TokenMap.from_offsets([10, 20, 30, 40], INDEX.codebook_sizes, end=END),
            ["as many as index.codebook_sizes, which count the end", "codebook_sizes=[4, 3, 5, 2]"],
        ),
        (hr.TokenMap((*TABLES[:2], TABLES[2][:3], TABLES[3]), end=(END,)), ["level 2", "4"]),
    ],
)
def test_rejects_tokens_that_do_not_fit(tokens, words):
    for make in (
        lambda: Retriever(qwen3(), INDEX, tokens),
        lambda: CatalogLogitsProcessor(INDEX, tokens, prompt_length=5),
        lambda: tokens.check(INDEX),
    ):
        with pytest.raises(hr.ArgumentError) as caught:
            make()
        for word in words:
            assert word in str(caught.value)


def test_explain():
    retriever = Retriever(qwen3(), INDEX, TOKENS)
    whole = scores_of(retriever.retrieve(PROMPT, beam_width=20, k=None)[0])
    narrow = scores_of(retriever.retrieve(PROMPT, beam_width=2, k=None)[0])
    outcomes = set()
    for row, sid in enumerate(MADE.sids):
        found = retriever.explain(PROMPT, row, beam_width=2)
        assert (found.sid, len(found.levels)) == (sid, 4)
        assert found.levels[-1].score == pytest.approx(whole[sid], abs=1e-4)
        assert tuple(level.code for level in found.levels) == MADE.as_codes(sid)
        assert (found.outcome == "returned") == (sid in narrow)
        outcomes.add((found.outcome, len(sid) < 4))
        if found.outcome == "cut":
            assert found.level is not None
            assert "left the beam at level" in str(found)
    assert outcomes >= {("returned", True), ("cut", True), ("cut", False)}


def test_explain_an_end_with_probability_0():
    model = Qwen3ForCausalLM(qwen3().config)
    model.load_state_dict(qwen3().state_dict())
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
    with torch.no_grad():
        model.lm_head.bias[END] = -torch.inf
    found = Retriever(model, INDEX, TOKENS).explain(PROMPT, 1, beam_width=20)
    assert (found.outcome, found.level) == ("banned", 2)
    assert "gives its end at level 2 probability 0" in str(found)
    retriever = Retriever(model, INDEX, TOKENS, normalize="vocab")
    assert len(retriever.retrieve(PROMPT, k=None)[0]) == 0
    found = retriever.explain(PROMPT, MADE.sids.index((0, 2, 0, 1)))
    assert (found.outcome, found.level) == ("banned", 4)
    assert "gives its end at level 4 probability 0" in str(found)


def test_plot_of_a_ragged_search(tmp_path):
    pytest.importorskip("matplotlib")
    from hedgerow.hf.plot import levels_of, plot_beams

    retriever = Retriever(qwen3(), INDEX, TOKENS)
    history = retriever.trace(PROMPT, beam_width=20)
    assert levels_of(history)[-1].survives.all()
    plot_beams(history, tmp_path / "x.svg", sid=MADE.as_codes((3,)))
    assert (tmp_path / "x.svg").stat().st_size
