"""Mutated files: each is rejected with a HedgerowError, or gives the answers that its arrays give when read naively."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.index.manifest import digest_of
from hedgerow.live.removed import removed_content
from hedgerow.semantic import files as quantizer_files

# Returns an integer from 0 to n - 1: the source of all choices of a mutation.
Pick = Callable[[int], int]

VALUES = [0, 1, -1, 2, 3, 7, 255, 256, 65_536, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 1e999, 0.5, True, False, None]
ATTRIBUTES = {
    "title": ["Alien", "", None, "Ä", "x" * 40],
    "tags": [["a", None], [], None, ["b"], ["c", "d"]],
    "place": [{"x": 1, "y": None}, None, {"x": 2, "y": "a"}, {"x": 3, "y": "b"}, {"x": 4, "y": "c"}],
    "sale": [True, None, False, True, True],
}
OTHERS = ["", "x", "../../x", "1", [], {}, [[]], "\0", "manifest.json", "current.json"]


def seeds(folder: Path) -> None:
    """Write the files that are mutated."""
    rng = np.random.default_rng(0)
    ragged = [row[: 1 + number % 3] for number, row in enumerate(rng.integers(0, 5, (40, 3)).tolist())]
    forked = [[code, 0, 0] for code in range(16)] + [[2, 1, 0], [9, 1, 0], [9, 1, 3]]
    catalogs = [
        (hr.Catalog(rng.integers(0, 6, (80, 3)), codebook_sizes=(6, 40, 300)), [0, 1]),
        (hr.Catalog(ragged, codebook_sizes=(5, 6, 6), ragged=True), []),
        (hr.Catalog(forked, codebook_sizes=(300, 300, 4)), [1]),
        (hr.Catalog([[0], [1], [1], [0], [1]], item_ids=list("abcde"), attributes=ATTRIBUTES), []),
    ]
    for number, (catalog, dense) in enumerate(catalogs):
        index = hr.build_index(catalog, dense_levels=dense)
        index.save(folder / f"index-{number}")
        if number < 2:
            hr.LiveIndex.create(folder / f"live-{number}", index).remove([index.item_ids[1].as_py()])
    for number, method in enumerate(("residual", "product")):
        codebooks = tuple(rng.normal(size=(4, 6 if method == "residual" else 3)).astype(np.float32) for _ in range(2))
        hr.Quantizer(method, codebooks, (4, 4)).save(folder / f"quantizer-{number}")


def mutated_bytes(data: bytes, pick: Pick) -> bytes:
    """Change 1 to 4 bytes or words, remove some, or repeat some."""
    changed = bytearray(data)
    for _ in range(1 + pick(4)):
        place = pick(len(changed) or 1)
        kind = pick(5)
        if kind == 0:
            changed[place : place + 1] = bytes([pick(256)])
        elif kind == 1:
            changed[place : place + 4] = int(VALUES[pick(10)]).to_bytes(8, "little", signed=True)[:4]
        elif kind == 2:
            changed[place : place + 1] = bytes([changed[place] ^ 1 << pick(8)]) if changed else b""
        elif kind == 3:
            del changed[place : place + 1 + pick(8)]
        else:
            changed[place:place] = changed[place : place + 1 + pick(8)]
    return bytes(changed)


def mutated_json(content: Any, pick: Pick) -> Any:
    """Replace one entry of a JSON object by another value, remove it, or change it a little."""
    node, path = content, []
    while isinstance(node, dict | list) and len(node):
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        path.append((node, keys[pick(len(keys))]))
        node = node[path[-1][1]]
        if pick(6) == 0:
            break
    if not path:
        return content
    parent, key = path[-1]
    kind = pick(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and type(node) is int:
        parent[key] = node + pick(5) - 2
    else:
        parent[key] = (VALUES + OTHERS)[pick(len(VALUES) + len(OTHERS))]
    return content


def write_sealed(path: Path, content: Any) -> None:
    """Write a manifest with a correct checksum."""
    if isinstance(content, dict):
        content["sha256"] = digest_of(content)
    path.write_text(json.dumps(content))


def fuzz_index(seed: Path, work: Path, pick: Pick) -> bool:
    """Mutate an index, load it, and check its answers. Returns whether it was accepted."""
    folder = copied(seed / f"index-{pick(4)}", work)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    part = ("trie", "trie", "trie", "items", "manifest")[pick(5)]
    if part == "manifest":
        manifest = mutated_json(manifest, pick)
    else:
        entry = manifest["files"][part]
        data = mutated_bytes((folder / entry["name"]).read_bytes(), pick)
        (folder / entry["name"]).write_bytes(data)
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_sealed(folder / "manifest.json", manifest)
    accepted = False
    for mmap in (False, True):
        try:
            index = hr.load_index(folder, mmap=mmap)
            check_answers(index, pick)
            accepted = True
            check_items(index)
        except hr.HedgerowError:
            continue
    return accepted


def fuzz_live(seed: Path, work: Path, pick: Pick) -> bool:
    """Mutate the manifest, an entry or the removed rows of a live index. Returns whether it was accepted."""
    folder = copied(seed / f"live-{pick(2)}", work)
    manifest = json.loads((folder / "current.json").read_bytes())
    kind = pick(3)
    if kind == 0:
        manifest = mutated_json(manifest, pick)
    else:
        path = folder / "versions" / "2" / "removed.npy"
        rows = np.asarray([pick(90) - 5 for _ in range(pick(4))], np.int64)
        data = mutated_bytes(path.read_bytes(), pick) if kind == 1 else removed_content(rows)
        path.write_bytes(data)
        manifest["current"]["removed"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["current"]["items"] += pick(3) - 1
    write_sealed(folder / "current.json", manifest)
    try:
        live = hr.LiveIndex.open(folder)
        version = live.version
        live.verify()
        live.versions()
    except hr.HedgerowError:
        return False
    index = version.index
    assert version.removed.sum() == len(version.removed_rows) == index.num_items - version.num_items
    check_answers(index, pick)
    returned = {row for results in version.results(full_search(index, version.restrict())) for row in results.rows}
    assert returned == set(np.flatnonzero(~version.removed).tolist())
    return True


def fuzz_quantizer(seed: Path, work: Path, pick: Pick) -> bool:
    """Mutate a quantizer, load it and use it. Returns whether it was accepted."""
    from safetensors import safe_open
    from safetensors.numpy import save

    path = work / "quantizer"
    shutil.copy(seed / f"quantizer-{pick(2)}", path)
    if pick(2):
        path.write_bytes(mutated_bytes(path.read_bytes(), pick))
    else:
        with safe_open(path, framework="numpy") as opened:
            facts = json.loads(opened.metadata()[quantizer_files.KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        facts.pop("sha256")
        if pick(2):
            facts = mutated_json(facts, pick)
        else:
            name = sorted(tensors)[pick(len(tensors))]
            tensors[name].flat[pick(tensors[name].size)] = (np.nan, np.inf, 1e38, -1e38, 0)[pick(5)]
        facts["sha256"] = quantizer_files._digest(facts, tensors)
        path.write_bytes(save(tensors, {quantizer_files.KEY: json.dumps(facts)}))
    try:
        quantizer = hr.Quantizer.load(path)
    except hr.HedgerowError:
        return False
    embeddings = np.random.default_rng(0).normal(size=(5, quantizer.dim)).astype(np.float32)
    codes = quantizer.encode(embeddings)
    assert codes.shape == (5, quantizer.num_levels)
    assert (codes >= 0).all()
    assert all((codes[:, level] < len(book)).all() for level, book in enumerate(quantizer.codebooks))
    assert np.isfinite(quantizer.decode(codes)).all()
    return True


def check_answers(index: hr.TrieIndex, pick: Pick) -> None:
    """Compare the answers of an index with those of a naive reading of its arrays."""
    rows: list[tuple[int, ...]] = [()]
    for number, level in enumerate(index.levels):
        spans = naive_spans(level.child_start, level.forks, len(rows))
        codes = [level.codes[start:stop].tolist() for start, stop in spans]
        for prefix, allowed in list(zip(rows, codes, strict=True))[:5]:
            given = [code for code, end in zip(prefix, index.end_codes, strict=False) if code != end]
            if len(given) == number:
                assert index.allowed_codes(given).tolist() == allowed
        rows = [(*row, code) for row, children in zip(rows, codes, strict=True) for code in children]
    expected = [[-1 if code == end else code for code, end in zip(row, index.end_codes, strict=True)] for row in rows]
    leaves = list(range(len(rows)))
    assert index.sids().tolist() == expected
    assert index.find(expected).tolist() == leaves if rows else True
    start, stop = index.rows_of(leaves)
    assert list(zip(start.tolist(), stop.tolist(), strict=True)) == naive_spans(
        index.leaf_start, index.leaf_forks, len(rows)
    )
    if rows and max(index.codebook_sizes) <= 1000:
        kernel = ("array", "native")[pick(8) == 0]
        beams = full_search(index, None, kernel)
        assert sorted(beams.states[0][: len(rows)].tolist()) == leaves
        assert int(beams.num_valid[0]) == len(rows)


def check_items(index: hr.TrieIndex) -> None:
    """Read every value of the items, and look up every id."""
    assert len(index.items_table.to_pylist()) == index.num_items
    assert index.rows(index.item_ids).tolist() == list(range(index.num_items))


def full_search(index: hr.TrieIndex, constraints: Any, kernel: Any = "array") -> hr.Beams:
    """A search whose beams hold every SID."""
    sizes = index.codebook_sizes
    return hr.beam_search(
        index,
        lambda beams: np.zeros((*beams.states.shape, sizes[beams.level]), np.float32),
        batch_size=1,
        beam_width=max(1, index.num_sids),
        constraints=constraints,
        kernel=kernel,
    )


def naive_spans(start: Any, forks: Any, parents: int) -> list[tuple[int, int]]:
    """The first child of each parent, and the child after its last."""
    if start is not None:
        edges = start.tolist()
    else:
        others = [] if forks is None else forks.tolist()
        edges = [0]
        for parent in range(parents):
            edges.append(edges[-1] + 1 + others.count(parent))
    return list(zip(edges[:-1], edges[1:], strict=True))  # noqa: RUF007


def copied(seed: Path, work: Path) -> Path:
    """A fresh copy of a seed folder."""
    folder = work / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed, folder)
    return folder


TARGETS = {"index": fuzz_index, "live": fuzz_live, "quantizer": fuzz_quantizer}
