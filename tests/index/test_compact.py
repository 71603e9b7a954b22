"""A compact index has the nodes, children and codes of the plain one, in fewer bytes."""

import itertools
import json

import numpy as np
import pytest
from damaged import catalog_of, entries, is_trie
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import same_trie
from ragged import ragged
from saved import contents, file_of, load_error, replace_part, same_index, sha256
from support import catalogs, dense_levels_of

import hedgerow as hr
from hedgerow._compiled import native
from hedgerow.index import compact, packed
from hedgerow.index.compact import Coding, CompactLevel, bits_of, code_bits, coding_of, compact_level, nbytes_of
from hedgerow.index.fanout import fan_out
from hedgerow.index.level import Level
from hedgerow.index.manifest import digest_of
from hedgerow.index.packed import pack, packed_at, packed_words, unpack
from hedgerow.index.select import BitVector
from hedgerow.index.tensors import read_tensors, write_tensors
from hedgerow.index.trie import plain_levels
from hedgerow.index.verify import verify_trie


@pytest.fixture(params=["compiled", "numpy"])
def functions(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(packed, "native", None)
    elif native is None:
        pytest.skip("hedgerow was built without a C compiler")


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("bits", range(32))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_packed_integers_are_read_as_they_were(bits, dtype, monkeypatch):
    monkeypatch.setattr(packed, "BLOCK", 64)
    for count in (0, 1, 31, 32, 33, 64, 200):
        values = np.random.default_rng(count).integers(0, 2**32, count).astype(dtype)
        words = pack(values, bits)
        expected = values.astype(np.uint32) & np.uint32((1 << bits) - 1)
        assert len(words) == packed_words(count, bits)
        assert unpack(words, bits, count).tolist() == expected.tolist()
        assert packed_at(words, bits, np.arange(count)).tolist() == expected.tolist()
        # As one long number, whose lowest bits are the first integer.
        whole = sum(int(value) << (bits * place) for place, value in enumerate(expected))
        assert words.tobytes() == whole.to_bytes(words.nbytes, "little")


@given(flags=st.lists(st.booleans(), min_size=1, max_size=1200), has_ones=st.booleans())
def test_zeros_and_ones_are_found_by_their_numbers(flags, has_ones):
    bits = np.asarray(flags)
    parts = np.array_split(np.flatnonzero(bits), 3)
    vector = BitVector.of((part for part in parts if len(part)), len(bits), has_ones=has_ones)
    ones, zeros = np.flatnonzero(bits), np.flatnonzero(~bits)
    assert vector.ones(np.arange(len(ones))).tolist() == ones.tolist()
    assert vector.zeros(np.arange(len(zeros))).tolist() == zeros.tolist()


def level_of(rng: np.random.Generator, parents: int, size: int, most: int) -> Level:
    children = [np.sort(rng.choice(size, rng.integers(1, most + 1), replace=False)) for _ in range(parents)]
    is_first = np.concatenate([np.arange(len(codes)) == 0 for codes in children])
    codes = np.concatenate(children).astype(np.min_scalar_type(size - 1))
    start, forks, max_branch = fan_out(is_first, parents)
    return Level(codes, start, forks, None, size, max_branch)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    parents=st.integers(1, 300),
    size=st.sampled_from([1, 2, 3, 31, 32, 33, 256, 257, 5000]),
    most=st.sampled_from([1, 2, 30, 400]),
)
def test_every_coding_of_a_level_equals_the_level(seed, parents, size, most):
    rng = np.random.default_rng(seed)
    level = level_of(rng, parents, size, min(most, size))
    codings = [Coding("elias-fano", low_bits) for low_bits in range(code_bits(size) + 1)]
    nodes, states = np.arange(level.num_nodes), np.arange(parents)
    wanted = rng.integers(0, size, parents)
    for coding in [coding_of(parents, len(nodes), size), *codings]:
        made = compact_level(level, coding)
        assert made.nbytes == nbytes_of(parents, len(nodes), size, coding)
        assert (made.num_nodes, made.num_parents, made.low_bits) == (len(nodes), parents, coding.low_bits)
        assert made.codes.dtype == level.codes.dtype
        assert made.codes.tolist() == made.codes_of(nodes).tolist() == level.codes.tolist()
        assert made.parents(nodes).tolist() == level.parents(nodes).tolist()
        assert [bound.tolist() for bound in made.children(states)] == [
            bound.tolist() for bound in level.children(states)
        ]
        assert made.find(states, wanted).tolist() == level.find(states, wanted).tolist()
        assert made.find(level.parents(nodes), level.codes).tolist() == nodes.tolist()
        if len(nodes) > parents:
            for name in ("child_start", "forks"):
                assert np.array_equal(getattr(made, name), getattr(level, name))


def test_no_coding_of_a_level_takes_much_less_than_the_chosen_one():
    for parents, share, size in itertools.product((1, 30, 1000, 10**6), (1, 1.01, 1.5, 20, 200), (2, 256, 8192)):
        nodes = int(parents * min(share, size))
        chosen = coding_of(parents, nodes, size)
        width = code_bits(size)
        for low_bits in range(width + 1):
            if bits_of(parents, nodes, width - low_bits) < 2**31:
                other = nbytes_of(parents, nodes, size, Coding("elias-fano", low_bits))
                assert nbytes_of(parents, nodes, size, chosen) * (1 - 1 / compact.WORTH_SPLITTING) <= other + 1


def test_a_level_whose_bit_vector_is_too_long_has_row_pointers():
    assert coding_of(2**29, 2**30 + 2**28, 2048).fan == "elias-fano"
    assert coding_of(2**30, 2**31 - 1, 2048) == Coding("sparse", 11)


@settings(max_examples=60)
@given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
def test_a_compact_index_answers_as_the_plain_one(catalog, dense, seed):
    levels = dense_levels_of(dense, catalog.num_levels)
    plain = hr.build_index(catalog, dense_levels=levels)
    index = hr.build_index(catalog, dense_levels=levels, layout="compact")
    assert (plain.layout, index.layout) == ("plain", "compact")
    assert 'layout="compact"' in repr(index)
    for decoded, level in zip(plain_levels(index), plain.levels, strict=True):
        for name in ("codes", "child_start", "forks"):
            assert np.array_equal(getattr(decoded, name), getattr(level, name))
    assert (index.sids() == plain.sids()).all()
    rng = np.random.default_rng(seed)
    wanted = np.stack([rng.integers(0, size, 50) for size in catalog.codebook_sizes], axis=1)
    assert (index.find(wanted) == plain.find(wanted)).all()
    for sid in catalog.sids[:5].tolist():
        for depth in range(catalog.num_levels):
            assert (index.allowed_codes(sid[:depth]) == plain.allowed_codes(sid[:depth])).all()
    keep = rng.random(len(catalog)) < 0.5
    dense = [level.allowed is not None for level in index.levels]
    if dense == [level.allowed is not None for level in plain.levels]:
        alive = (made.constraint(keep, order="index")._alive for made in (index, plain))
        assert all(itertools.starmap(np.array_equal, zip(*(words.levels for words in alive), strict=True)))


@given(catalog=catalogs(), data=st.data())
def test_filter_merge_and_concat_equal_one_compact_build(catalog, data):
    catalog = hr.Catalog(
        catalog.sids, codebook_sizes=catalog.codebook_sizes, item_ids=np.arange(len(catalog)) * 3 % 181
    )
    index = hr.build_index(catalog, layout="compact")
    kept = np.asarray(data.draw(st.lists(st.booleans(), min_size=len(catalog), max_size=len(catalog))), bool)
    part = hr.build_index(catalog.filter(kept), layout="compact")
    rows = np.isin(index.item_ids.to_numpy(), catalog.item_ids.to_numpy()[kept])
    assert same_trie(index.filter(rows, order="index"), part)
    assert same_trie(hr.merge(part, added=catalog.filter(~kept)), index)
    first = np.asarray(catalog.sids)[:, 0] < catalog.codebook_sizes[0] // 2
    parts = [hr.build_index(catalog.filter(flags), layout="compact") for flags in (first, ~first)]
    assert same_trie(hr.concat(parts), index)
    plain = hr.concat(parts, layout="plain")
    assert same_trie(plain, hr.build_index(catalog))
    assert same_trie(hr.concat([plain], layout="compact"), index)


@given(of_lengths=ragged())
def test_ragged_sids(of_lengths):
    plain = hr.build_index(of_lengths.catalog)
    index = hr.build_index(of_lengths.catalog, layout="compact")
    assert (index.sids() == plain.sids()).all()
    assert (index.find(plain.sids()) == np.arange(plain.num_sids)).all()


def test_an_index_without_items():
    catalog = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=(3, 40))
    index = hr.build_index(catalog, layout="compact")
    assert (index.layout, len(index), index.find([[0, 0]]).tolist()) == ("compact", 0, [-1])
    full = hr.merge(index, added=hr.Catalog([[1, 5]], item_ids=["a"]))
    assert (full.layout, full.find([[1, 5]]).tolist()) == ("compact", [0])
    assert hr.concat([index], layout="plain").layout == "plain"


def test_unknown_layouts_are_refused():
    catalog = hr.Catalog([[0, 1]])
    with pytest.raises(hr.ArgumentError, match="layout"):
        hr.build_index(catalog, layout="small")  # pyright: ignore[reportArgumentType]
    with pytest.raises(hr.ArgumentError, match="layout"):
        hr.concat([hr.build_index(catalog)], layout=1)  # pyright: ignore[reportArgumentType]


# Level 0 has row pointers and a bitmap. Level 1 is split: LOW of the 8 bits of a code are packed.
SIDS = [(0, 3)] + [(1, 7 * number) for number in range(20)] + [(2, 9 * number + 2) for number in range(25)]
LOW = 2
SHAPES = {
    "allowed.0": ("U32", [1, 1]),
    "codes.0": ("U32", [3]),
    "codes.1": ("U32", [5]),
    "high.1": ("U32", [1, 8]),
    "child_start.0": ("I32", [2]),
    "id_order": ("I32", [46]),
    "ones_before.1": ("I32", [1]),
    "zeros_before.1": ("I32", [1]),
}


def as_bytes(bits: str, size: int) -> bytes:
    """Bits, the first of which is the lowest of the first byte, filled up with zeros."""
    return int(bits[::-1], 2).to_bytes(size, "little")


def trie_by_hand() -> bytes:
    """The file of the trie of SIDS, from docs/reference/file-format.md."""
    low = "".join(f"{code % 2**LOW:0{LOW}b}"[::-1] for _, code in SIDS)
    buckets = [(first << (8 - LOW)) + (code >> LOW) for first, code in SIDS]
    high = "".join("0" + "1" * buckets.count(bucket) for bucket in range(3 << (8 - LOW))) + "0"
    contents = {
        "allowed.0": as_bytes("111", 4),
        "codes.0": as_bytes("00" + "10" + "01", 3 * 4),
        "codes.1": as_bytes(low, 5 * 4),
        "high.1": as_bytes(high, 8 * 4),
        "child_start.0": np.asarray([0, 3], "<i4").tobytes(),
        "id_order": np.arange(46, dtype="<i4").tobytes(),
        "ones_before.1": bytes(4),
        "zeros_before.1": bytes(4),
    }
    header, stop = {}, 0
    for name, content in contents.items():
        start, stop = stop, stop + len(content)
        dtype, shape = SHAPES[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(contents.values())


def test_format_is_unchanged(tmp_path):
    index = hr.build_index(hr.Catalog(SIDS, codebook_sizes=(3, 256)), layout="compact")
    index.save(tmp_path)
    trie = file_of(tmp_path, "trie").read_bytes()
    assert trie == trie_by_hand()
    assert sha256(trie) == "a9d40197efabbe536cfde3fec43471fa6648b2ced38124bfd31653b7131856f1"
    manifest = json.loads(file_of(tmp_path, "manifest").read_bytes())
    assert (manifest["version"], manifest["layout"], manifest["items"]) == (3, "compact", 46)
    assert manifest["levels"] == [
        {"codebook_size": 3, "dense": True, "low_bits": 2, "max_branch": 3, "nodes": 3},
        {"codebook_size": 256, "dense": False, "low_bits": 2, "max_branch": 25, "nodes": 46},
    ]
    for mmap, verify in [(False, None), (True, None), (True, "none")]:
        assert same_index(hr.load_index(tmp_path, mmap=mmap, verify=verify), index)


def test_an_index_that_was_saved_is_saved_again_with_the_same_bytes(tmp_path):
    index = hr.build_index(catalog_of("plain"), layout="compact")
    index.save(tmp_path / "first")
    hr.load_index(tmp_path / "first", mmap=True).save(tmp_path / "again")
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    assert same_index(hr.TrieIndex._of(verify_trie(tmp_path / "again")), index)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("layout", ["compact", "split"], indirect=True)
@pytest.mark.parametrize("name", ["plain", "forked", "ragged"])
def test_damaged_files_are_refused_or_hold_another_trie(name, tmp_path):
    index = hr.build_index(catalog_of(name), dense_levels=[0])
    index.save(tmp_path)
    trie = file_of(tmp_path, "trie")
    tensors = read_tensors(np.frombuffer(trie.read_bytes(), np.uint8), trie)
    refused = 0
    for changed_name in [key for key in tensors if key.partition(".")[0] not in ("leaf_start", "id_order")]:
        for changed in entries(tensors[changed_name]):
            write_tensors(tensors | {changed_name: changed}, tmp_path.with_suffix(".trie"))
            replace_part(tmp_path, "trie", tmp_path.with_suffix(".trie").read_bytes())
            try:
                loaded = hr.load_index(tmp_path)
            except hr.IndexFileError:
                refused += 1
                continue
            assert is_trie(loaded)
            assert (loaded.find(loaded.sids()) == np.arange(loaded.num_sids)).all()
    assert refused > 20


@pytest.mark.parametrize("key", ["low_bits", "layout"])
def test_manifests_with_wrong_keys_are_refused(key, tmp_path):
    index = hr.build_index(catalog_of("plain"), layout="compact")
    index.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    for value in (-1, 3, 99, "plain", None, True):
        changed = json.loads(json.dumps(manifest))
        holder = changed if key == "layout" else changed["levels"][1]
        if holder[key] == value:
            continue
        holder[key] = value
        (tmp_path / "manifest.json").write_text(json.dumps(changed | {"sha256": digest_of(changed)}))
        load_error(tmp_path)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_node_that_lost_its_only_child_is_refused(at_the_end, tmp_path):
    # Nearly all nodes have one child, so the fan-out is decoded as forks.
    rows = [(number // 64, number % 64, number % 7) for number in range(2000)]
    rows += [(number // 64, number % 64, 500) for number in range(0, 1980, 10)]
    rows += [(*rows[1999][:2], 600)] * at_the_end
    index = hr.build_index(hr.Catalog(rows, codebook_sizes=(64, 64, 2048)), layout="compact")
    level = index.levels[2]
    assert isinstance(level, CompactLevel)
    assert level.bits is not None
    assert level.forks is not None
    index.save(tmp_path / "index")
    (path,) = (tmp_path / "index").glob("trie-*")
    arrays = read_tensors(np.fromfile(path, np.uint8), path)
    bits = np.unpackbits(arrays["high.2"].copy().view(np.uint8).reshape(-1), bitorder="little")
    one = int(level.bits.ones(level.children(np.array([1991]))[0])[0])
    # The only child of node 1,991 becomes a second child of the next node, within a block of the directory.
    assert bits[one - 1 : one + 2].tolist() == [0, 1, 0]
    bits[one : one + 2] = bits[one : one + 2][::-1]
    content = bytearray(path.read_bytes())
    old = arrays["high.2"].tobytes()
    place = content.find(old)
    content[place : place + len(old)] = np.packbits(bits, bitorder="little").tobytes()
    path.write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(hr.IndexFileError):
            hr.load_index(tmp_path / "index", mmap=mmap)
