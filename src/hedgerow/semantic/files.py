"""A saved quantizer: one safetensors file, written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import numpy as np

from hedgerow.errors import ArgumentError, QuantizerFileError
from hedgerow.index.files import sync
from hedgerow.semantic.codebooks import Codebooks
from hedgerow.semantic.statistics import TrainingStatistics, as_facts

FORMAT = "hedgerow-quantizer"
VERSION = 1
# The only key of the file's metadata: safetensors does not keep the order of several keys.
KEY = "hedgerow"
# The suffix of files that are being written, and the age in seconds after which such a file is stale.
NEW = ".hedgerow-new"
DAY = 24 * 60 * 60


def save_quantizer(quantizer: Codebooks, path: str | Path) -> None:
    """Write a quantizer to a file: see `Quantizer.save`."""
    file = _as_path(path)
    check_replaceable(file)
    content = content_of(quantizer)
    try:
        write_whole({file: lambda new: new.write(content)})
    except OSError as error:
        raise QuantizerFileError(f"the quantizer cannot be saved to {file}: {error.strerror or error}.") from error


def check_replaceable(file: Path) -> None:
    """Check that a file does not exist, or is a quantizer.

    Raises:
        QuantizerFileError: the file exists and is not a quantizer.
    """
    if not _is(os.path.lexists, file):
        return
    try:
        load_quantizer(file)
    except QuantizerFileError as error:
        raise QuantizerFileError(
            f"{file} exists and is not a quantizer, so it is not replaced. Choose another path."
        ) from error


def content_of(quantizer: Codebooks) -> bytes:
    """The content of the file of a quantizer."""
    from safetensors.numpy import save

    tensors = {f"codebook.{level:03}": codebook for level, codebook in enumerate(quantizer.codebooks)}
    if quantizer.rotation is not None:
        tensors["rotation"] = quantizer.rotation
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "method": quantizer.method,
        "codebook_sizes": list(quantizer.codebook_sizes),
        "separate_codes": quantizer.deduplication_codes,
        **as_facts(quantizer.training),
        **({} if quantizer.text_columns is None else {"text_columns": list(quantizer.text_columns)}),
    }
    return save(tensors, {KEY: json.dumps(facts | {"sha256": _digest(facts, tensors)}, sort_keys=True)})


def load_quantizer(path: str | Path) -> Codebooks:
    """Read the codebooks of a quantizer from a file: see `Quantizer.load`."""
    from safetensors import SafetensorError, safe_open

    file = _as_path(path)
    if not _is(Path.is_file, file):
        problem = "is a folder; a quantizer is a file" if file.is_dir() else "does not exist"
        raise QuantizerFileError(
            f"{file} {problem}. Write a quantizer with quantizer.save(path), or hedgerow semantic-ids --quantizer."
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            facts = json.loads((opened.metadata() or {})[KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if facts["format"] != FORMAT or type(facts["version"]) is not int:
            raise KeyError("format")
    except OSError as error:
        raise QuantizerFileError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise QuantizerFileError(f"{file} is not a quantizer of hedgerow, or it is damaged.") from None
    if facts["version"] > VERSION:
        raise QuantizerFileError(
            f"{file} has format version {facts['version']}; this hedgerow reads up to {VERSION}. Upgrade hedgerow, or "
            "train again."
        )
    if facts.pop("sha256", None) != _digest(facts, tensors):
        raise QuantizerFileError(f"{file} was altered or damaged: its checksum differs. Train and save it again.")
    return _codebooks_of(file, facts, tensors)


def _codebooks_of(file: Path, facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> Codebooks:
    rotation = tensors.pop("rotation", None)
    codebooks = tuple(tensors[name] for name in sorted(tensors))
    try:
        sizes, training = tuple(facts["codebook_sizes"]), facts.get("training")
        statistics = None if training is None else TrainingStatistics(**training)
        texts = None if facts.get("text_columns") is None else tuple(map(str, facts["text_columns"]))
        return Codebooks(facts["method"], codebooks, sizes, rotation, facts["separate_codes"], statistics, texts)
    except (ArgumentError, KeyError, TypeError, ValueError) as error:
        raise QuantizerFileError(f"{file} does not contain a valid quantizer: {error}") from None


def _digest(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """The SHA-256 of the metadata and the tensors."""
    content = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        content.update(np.ascontiguousarray(tensors[name]).data)
    return content.hexdigest()


def write_whole(files: Mapping[Path, Callable[[BinaryIO], Any]]) -> None:
    """Write files to temporary files beside them, and rename these, in order, when all are complete.

    A reader sees the old content or the new content of a file. If a file cannot be written, none is changed.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, write in files.items():
            # Unique among threads, processes and containers; short, because the name of `path` can be long.
            temporary[path] = path.with_name(f".{token_hex(8)}{NEW}")
            with open(temporary[path], "xb") as file:
                write(file)
            sync(temporary[path])
        for path, new in temporary.items():
            os.replace(new, path)
            sync(path.parent)
            _remove_stale(path.parent)
    finally:
        for new in temporary.values():
            new.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Remove temporary files of killed processes that are older than a day; others may still be written."""
    for stale in folder.glob(f".*{NEW}"):
        with suppress(OSError):
            if time.time() - stale.stat().st_mtime > DAY:
                stale.unlink()


def _is(check: Callable[[Path], bool], file: Path) -> bool:
    try:
        return check(file)
    except (OSError, ValueError) as error:
        # For example, the name is too long, or the folder cannot be read.
        raise QuantizerFileError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _as_path(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a file; got {path!r}: {error}.") from None
