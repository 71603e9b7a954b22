"""TokenMap: made from offsets, tables and tokenizers; encoding, decoding and errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import array_of

import hedgerow as hr

ONEREC = {f"<s_{label}_{code}>": 100 + 10 * level + code for level, label in enumerate("abc") for code in range(10)}
MINIONEREC = {f"<{label}_{code}>": 50 + 4 * level + code for level, label in enumerate("abcd") for code in range(4)}
WORDS = {"the": 0, "<extra_id_0>": 1, "<|endoftext|>": 2}


def token_map(*tables: list[int], **delimiters) -> hr.TokenMap:
    return hr.TokenMap(tuple(map(np.asarray, tables)), **delimiters)


def tables_of(tokens: hr.TokenMap) -> list[list[int]]:
    return [table.tolist() for table in tokens.token_ids]


@st.composite
def maps(draw: st.DrawFn) -> hr.TokenMap:
    """Token maps with ids from the whole vocabulary; levels may share ids, and codes may lack a token."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tables = []
    for size in draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)):
        table = rng.permutation(200)[:size]
        table[rng.random(size) < draw(st.sampled_from([0, 0.3]))] = -1
        tables.append(table)
    return hr.TokenMap(tuple(tables))


@given(tokens=maps(), seed=st.integers(0, 2**32))
def test_encode_and_decode_are_inverse(tokens, seed):
    rng = np.random.default_rng(seed)
    codes_with_token = [np.flatnonzero(table >= 0) for table in tokens.token_ids]
    if all(map(len, codes_with_token)):
        sids = np.stack([rng.choice(codes, 7) for codes in codes_with_token], axis=1)
        ids = tokens.encode(sids)
        assert ids.tolist() == [[tables[c] for tables, c in zip(tables_of(tokens), sid, strict=True)] for sid in sids]
        assert tokens.decode(ids).tolist() == sids.tolist()
    ids = rng.integers(-1, 210, (30, tokens.num_levels))
    expected = [
        [table.index(token) if token >= 0 and token in table else -1 for table, token in zip(tables, row, strict=True)]
        for tables, row in ((tables_of(tokens), row) for row in ids.tolist())
    ]
    assert tokens.decode(ids).tolist() == expected
    assert [codes.tolist() for codes in tokens.missing] == [
        [code for code, token in enumerate(table) if token == -1] for table in tables_of(tokens)
    ]


def test_from_offsets():
    tokens = hr.TokenMap.from_offsets([100, 50], (3, 2), begin=7, end=[8, 9])
    assert tables_of(tokens) == [[100, 101, 102], [50, 51]]
    assert (tokens.begin, tokens.end) == ((7,), (8, 9))
    assert (tokens.num_levels, tokens.codebook_sizes) == (2, (3, 2))
    assert repr(tokens) == "TokenMap(levels=2, codebook_sizes=(3, 2), begin=(7,), end=(8, 9))"


def test_equal_maps_are_equal():
    tokens, same = (
        hr.TokenMap.from_offsets([3, 9], 4, end=1),
        hr.TokenMap((np.arange(3, 7), np.arange(9, 13)), end=(1,)),
    )
    assert tokens == same
    assert hash(tokens) == hash(same)
    assert tokens not in (hr.TokenMap.from_offsets([3, 9], 4), hr.TokenMap.from_offsets([3, 10], 4, end=1), 3)


def test_tables_are_copied_and_frozen():
    table = np.arange(4)
    tokens = hr.TokenMap((table,))
    table[0] = 99
    assert tables_of(tokens) == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="read-only"):
        tokens.token_ids[0][0] = 5


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ((), "at least one level"),
        (([],), r"level 0: expected integers \[C\], the token id of each code"),
        (([1, 2], [0.5]), r"level 1: .* got float64 \[1\]"),
        (([[1, 2]],), r"got int64 \[1, 2\]"),
        (([4, -2],), "level 0: a token id must be at least 0, or -1 .*; got -2"),
        (([1, 2, 1],), "level 0: token 1 stands for two codes, 0 and 2"),
    ],
)
def test_rejects_invalid_tables(tables, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        hr.TokenMap(tables)


@pytest.mark.parametrize("ids", [[-1], [True], ["<sid>"], [1.5], None, 1.5])
def test_rejects_invalid_delimiters(ids):
    with pytest.raises(hr.ArgumentError, match="begin must be token ids, integers from 0; got"):
        token_map([1], begin=ids)


@pytest.mark.parametrize(
    ("offsets", "sizes"), [([1, 20], [3]), ([1, 20], 0), ([1], [3, 4]), ([1], 2.5), ([1], [2.5]), ([1], True)]
)
def test_rejects_invalid_codebook_sizes(offsets, sizes):
    with pytest.raises(hr.ArgumentError, match="codebook_sizes must be one positive integer"):
        hr.TokenMap.from_offsets(offsets, sizes)


def test_rejects_a_negative_offset():
    with pytest.raises(hr.ArgumentError, match="offsets must be token ids, integers from 0; got -1"):
        hr.TokenMap.from_offsets([-1, 5], 4)


def test_encode_rejects_codes_without_token_and_other_shapes():
    tokens = token_map([5, -1, 7], [1, 2])
    with pytest.raises(hr.ArgumentError, match="code 1 has no token"):
        tokens.encode([[0, 0], [1, 0]])
    with pytest.raises(hr.ArgumentError, match="code 2 has no token; the codes of its level are 0 to 1"):
        tokens.encode([[0, 2]])
    with pytest.raises(hr.ArgumentError, match=r"expected integers \[R, 2\], one column per level; got int64 \[1, 3\]"):
        tokens.encode([[0, 0, 0]])
    with pytest.raises(hr.ArgumentError, match="got float64"):
        tokens.decode([[0.0, 1.0]])
    with pytest.raises(hr.ArgumentError, match=r"got int64 \[2\]"):
        tokens.encode([0, 0])
    assert tokens.encode(np.zeros((0, 2), int)).shape == (0, 2)


def test_encodes_arrays_of_any_dimension():
    tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=[4, 6])
    sids = np.random.default_rng(0).integers(0, [4, 6], (3, 5, 2))
    token_ids = tokens.encode(sids)
    assert token_ids.tolist() == [tokens.encode(history).tolist() for history in sids]
    assert tokens.decode(token_ids).tolist() == sids.tolist()


class TestTokenizer:
    def test_onerec(self):
        tokens = hr.TokenMap.from_tokenizer(WORDS | ONEREC)
        assert tables_of(tokens) == [list(range(first, first + 10)) for first in (100, 110, 120)]

    def test_levels_select_and_order_the_labels(self):
        tokens = hr.TokenMap.from_tokenizer(ONEREC, "<s_{level}_{code}>", levels="ca", codebook_sizes=(10, 4))
        assert tables_of(tokens) == [list(range(120, 130)), list(range(100, 104))]

    def test_numeric_labels_are_sorted_by_value(self):
        vocabulary = {f"[{level}:{code}]": 3 * level + code for level in range(12) for code in range(3)}
        tokens = hr.TokenMap.from_tokenizer(vocabulary, "[{level}:{code}]")
        assert tables_of(tokens) == [[3 * level, 3 * level + 1, 3 * level + 2] for level in range(12)]
        chosen = hr.TokenMap.from_tokenizer(vocabulary, "[{level}:{code}]", levels=range(3))
        assert chosen.num_levels == 3

    def test_labels_can_be_words(self):
        vocabulary = {"<kind_0>": 4, "<kind_1>": 9, "<maker_0>": 7}
        tokens = hr.TokenMap.from_tokenizer(vocabulary, "<{level}_{code}>", levels=["maker", "kind"])
        assert tables_of(tokens) == [[7], [4, 9]]

    def test_code_can_precede_level(self):
        tokens = hr.TokenMap.from_tokenizer({"<0@a>": 3, "<1@a>": 5, "<0@b>": 4}, "<{code}@{level}>")
        assert tables_of(tokens) == [[3, 5], [4]]

    def test_pattern_is_literal_text(self):
        tokens = hr.TokenMap.from_tokenizer({"(a+0).": 1, "(aa0)x": 2}, "({level}+{code}).")
        assert tables_of(tokens) == [[1]]

    def test_codes_without_token(self):
        vocabulary = {token: token_id for token, token_id in ONEREC.items() if token not in ("<s_b_3>", "<s_c_9>")}
        tokens = hr.TokenMap.from_tokenizer(vocabulary)
        assert [codes.tolist() for codes in tokens.missing] == [[], [3], []]
        assert tokens.codebook_sizes == (10, 10, 9)
        assert repr(tokens).endswith("missing=1)")
        with pytest.raises(hr.ArgumentError, match=r"level 1 must have 10 codes, but 1 .* no token, .*'<s_b_3>'"):
            hr.TokenMap.from_tokenizer(vocabulary, codebook_sizes=10)

    def test_delimiters_as_text_and_as_ids(self):
        tokens = hr.TokenMap.from_tokenizer(WORDS | ONEREC, begin="the", end=["<|endoftext|>", 5])
        assert (tokens.begin, tokens.end) == ((0,), (2, 5))
        with pytest.raises(hr.ArgumentError, match="begin: '<sid>' is not a token of the vocabulary"):
            hr.TokenMap.from_tokenizer(ONEREC, begin="<sid>")

    @pytest.mark.parametrize("pattern", ["<s_{level}>", "<{code}>", "s", "<{level}_{level}_{code}>"])
    def test_rejects_patterns_without_level_or_code(self, pattern):
        with pytest.raises(hr.ArgumentError, match=r"must contain \{level\} and \{code\}"):
            hr.TokenMap.from_tokenizer(ONEREC, pattern)

    def test_errors_list_what_was_found(self):
        with pytest.raises(hr.ArgumentError, match=r"looks like '<s_\{level\}_\{code\}>'; .*'<d_3>'"):
            hr.TokenMap.from_tokenizer(MINIONEREC)
        with pytest.raises(hr.ArgumentError, match=r"level 3: no token looks like '<s_d_0>'; .* found are a, b, c"):
            hr.TokenMap.from_tokenizer(ONEREC, levels="abcd")
        with pytest.raises(hr.ArgumentError, match="a mapping token -> id; got str"):
            hr.TokenMap.from_tokenizer("gpt2")
        with pytest.raises(hr.ArgumentError, match="no tokens at all"):
            hr.TokenMap.from_tokenizer({})

    def test_tokenizers_of_both_libraries(self):
        pytest.importorskip("tokenizers")
        pytest.importorskip("transformers")
        from tiny import TOKENS, tokenizer

        for given_tokenizer in (tokenizer(), tokenizer().backend_tokenizer):
            assert tables_of(hr.TokenMap.from_tokenizer(given_tokenizer)) == tables_of(TOKENS)


class TestDetect:
    @pytest.mark.parametrize(
        ("vocabulary", "levels", "first_token"), [(ONEREC, 3, 100), (MINIONEREC, 4, 50)], ids=["OneRec", "MiniOneRec"]
    )
    def test_layouts(self, vocabulary, levels, first_token):
        tokens = hr.TokenMap.detect(WORDS | vocabulary)
        assert (tokens.num_levels, int(tokens.token_ids[0][0]), tokens.begin) == (levels, first_token, ())

    @pytest.mark.parametrize("pattern", ["<|sid_{}_{}|>", "<sid_{}_{}>", "<|{}_{}|>", "[{}_{}]"])
    def test_other_layouts(self, pattern):
        vocabulary = {pattern.format(level, code): 2 * level + code for level in range(3) for code in range(2)}
        assert tables_of(hr.TokenMap.detect(vocabulary)) == [[0, 1], [2, 3], [4, 5]]

    def test_delimiters_are_detected_in_pairs(self):
        tokens = hr.TokenMap.detect(ONEREC | {"<|sid_begin|>": 7, "<|sid_end|>": 8})
        assert (tokens.begin, tokens.end) == ((7,), (8,))
        assert hr.TokenMap.detect(ONEREC | {"<|sid_begin|>": 7}).begin == ()

    def test_rejects_vocabularies_without_known_layout(self):
        with pytest.raises(hr.ArgumentError, match=r"no tokens like .*'<\|endoftext\|>'.* Pass its pattern"):
            hr.TokenMap.detect(WORDS)


class TestCheck:
    index = hr.build_index(hr.Catalog([[0, 3], [2, 1]], codebook_sizes=5))

    def test_unused_codes_can_lack_a_token(self):
        token_map([4, -1, 5], [-1, 1, -1, 2, -1, -1, 7]).check(self.index)

    def test_rejects_used_codes_without_token(self):
        with pytest.raises(hr.ArgumentError, match=r"1 codes that the catalog uses at level 0 have no token: 2\."):
            token_map([4, 5], [1, 2, 3, 4]).check(self.index)
        with pytest.raises(hr.ArgumentError, match=r"2 codes .* at level 1 have no token: 1, 3\."):
            token_map([4, 5, 6], [1, -1, 3, -1]).check(self.index)

    def test_rejects_another_number_of_levels(self):
        with pytest.raises(hr.ArgumentError, match="SIDs of 2 codes, but the token map has 1 levels"):
            hr.TokenMap.from_offsets([0], 5).check(self.index)


def test_rejects_two_tokens_for_one_code():
    with pytest.raises(hr.ArgumentError, match="token '<s_a_1>': another token stands for code 1 of level 'a'"):
        hr.TokenMap.from_tokenizer({"<s_a_01>": 1, "<s_a_1>": 2, "<s_a_0>": 0})


def test_rejects_codes_larger_than_any_vocabulary():
    with pytest.raises(hr.ArgumentError, match="a code must be below 16,777,216"):
        hr.TokenMap.from_tokenizer({"<s_a_99999999999>": 1})
    with pytest.raises(hr.ArgumentError, match="codebook_sizes"):
        hr.TokenMap.from_offsets([1], codebook_sizes=2**40)


@pytest.mark.parametrize("offsets", ["ab", 5, None, ["a"], [1.5], [True]])
def test_rejects_other_offsets(offsets):
    with pytest.raises(hr.ArgumentError, match="offsets must be token ids"):
        hr.TokenMap.from_offsets(offsets, 4)


@pytest.mark.parametrize("history", [None, hr.HistoryForm((1,), (2, 3), 20), hr.HistoryForm()])
def test_saved_maps_are_loaded_from_files_and_folders(tmp_path, history):
    tokens = hr.TokenMap((np.array([5, -1, 9]), np.array([20, 21, 22])), begin=(7,), end=(8, 9), history=history)
    tokens.save(tmp_path / "map.json")
    tokens.save(tmp_path)
    assert hr.TokenMap.load(tmp_path / "map.json") == tokens == hr.TokenMap.load(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "tokens.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "no list of levels"),
        ('{"format": 2, "levels": []}', "format 2; this version of hedgerow reads format 1"),
        ('{"format": 1, "levels": []}', "at least one level"),
        ('{"format": 1, "levels": [5]}', "expected for each level a list of token ids"),
        ('{"format": 1, "levels": [{"first": -1, "codes": 3}]}', "first must be an integer from 0"),
        ('{"format": 1, "levels": [[1, 1]]}', "token 1 stands for two codes"),
        ('{"format": 1, "levels": [[1]], "end": [-2]}', "end must be token ids"),
        ('{"format": 1, "levels": [[1]], "history": {"max": 3}}', "history must have start"),
        ('{"format": 1, "levels": [[1]], "history": {"max_items": 0}}', "max_items must be a positive integer"),
    ],
)
def test_damaged_files_of_tokens(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(hr.ArgumentError, match=message):
        hr.TokenMap.load(tmp_path / "tokens.json")


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_code_logits(backend):
    pytest.importorskip(backend)
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=[3, 2]))
    tokens = token_map([10, 12, 11, 13], [20, -1])
    with pytest.raises(hr.ArgumentError, match="no token: 1"):
        tokens.code_logits(np.zeros((2, 24)), index)
    tokens = token_map([10, -1, 11, 13], [20, 21, 22])
    logits = np.random.default_rng(0).normal(size=(2, 3, 2, 24)).astype(np.float32)
    first, second = map(np.asarray, tokens.code_logits(array_of(backend, logits), index))
    assert (first[..., [0, 2]] == logits[..., 0, [10, 11]]).all()
    assert (first[..., 1] == -np.inf).all()
    assert (second == logits[..., 1, 20:22]).all()
    for shape, message in (((2, 22), "token 22"), ((3, 24), r"one position per level; got \[3, 24\]"), ((24,), "L")):
        with pytest.raises(hr.ArgumentError, match=message.replace("L", "level")):
            tokens.code_logits(array_of(backend, np.zeros(shape, np.float32)), index)
