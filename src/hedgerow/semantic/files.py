"""A quantizer on disk: one safetensors file, whole or not there at all."""

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

FORMAT = "hedgerow-quantizer"
VERSION = 1
# The one key of the file's metadata: safetensors keeps several in no order.
KEY = "hedgerow"
# How the names of files end that are being written, and in how many seconds they are left over.
NEW = ".hedgerow-new"
DAY = 24 * 60 * 60


def save_quantizer(quantizer: Codebooks, path: str | Path) -> None:
    """Writes a quantizer to a file: `Quantizer.save`."""
    file = _as_path(path)
    check_replaceable(file)
    content = content_of(quantizer)
    try:
        write_whole({file: lambda new: new.write(content)})
    except OSError as error:
        raise QuantizerFileError(f"the quantizer cannot be saved to {file}: {error.strerror or error}.") from error


def check_replaceable(file: Path) -> None:
    """Checks that there is no file but another quantizer's.

    Raises:
        QuantizerFileError: there is.
    """
    if not _is(os.path.lexists, file):
        return
    try:
        load_quantizer(file)
    except QuantizerFileError as error:
        raise QuantizerFileError(f"{file} is there, and no quantizer to replace. Choose another path.") from error


def content_of(quantizer: Codebooks) -> bytes:
    """Returns what the file of a quantizer holds."""
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
    }
    return save(tensors, {KEY: json.dumps(facts | {"sha256": _digest(facts, tensors)}, sort_keys=True)})


def load_quantizer(path: str | Path) -> Codebooks:
    """Returns the quantizer that a file holds: `Quantizer.load`."""
    from safetensors import SafetensorError, safe_open

    file = _as_path(path)
    if not _is(Path.is_file, file):
        what = "is a folder; a quantizer is one file" if file.is_dir() else "does not exist"
        raise QuantizerFileError(f"{file} {what}. Write one with quantizer.save(path), or: hedgerow semantic-ids.")
    try:
        with safe_open(file, framework="numpy") as opened:
            facts = json.loads((opened.metadata() or {})[KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if facts["format"] != FORMAT or type(facts["version"]) is not int:
            raise KeyError("format")
    except OSError as error:
        raise QuantizerFileError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise QuantizerFileError(f"{file} is not a quantizer that hedgerow wrote, or it is damaged.") from None
    if facts["version"] > VERSION:
        raise QuantizerFileError(
            f"{file} has format version {facts['version']}; this hedgerow reads up to {VERSION}. Upgrade it, or train "
            "anew."
        )
    if facts.pop("sha256", None) != _digest(facts, tensors):
        raise QuantizerFileError(f"{file} was altered or damaged: its checksum differs. Train and save it again.")
    return _made(file, facts, tensors)


def _made(file: Path, facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> Codebooks:
    rotation = tensors.pop("rotation", None)
    codebooks = tuple(tensors[name] for name in sorted(tensors))
    try:
        return Codebooks(facts["method"], codebooks, tuple(facts["codebook_sizes"]), rotation, facts["separate_codes"])
    except (ArgumentError, KeyError, TypeError) as error:
        raise QuantizerFileError(f"{file} does not hold a quantizer: {error}") from None


def _digest(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 of all that a file says."""
    content = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        content.update(np.ascontiguousarray(tensors[name]).data)
    return content.hexdigest()


def write_whole(files: Mapping[Path, Callable[[BinaryIO], Any]]) -> None:
    """Writes files by way of others beside them, which take their places, in order, once all are whole.

    So whoever reads one of them sees what was there, or all that is new; and where one cannot be written, all stay as
    they were.
    """
    made: dict[Path, Path] = {}
    try:
        for path, write in files.items():
            # A name that no thread, and no process of another container, has too; short, as `path` may be long.
            made[path] = path.with_name(f".{token_hex(8)}{NEW}")
            with open(made[path], "xb") as file:
                write(file)
            sync(made[path])
        for path, new in made.items():
            os.replace(new, path)
            sync(path.parent)
            _sweep(path.parent)
    finally:
        for new in made.values():
            new.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Removes what processes that were killed have left a day ago or longer; others may still be writing."""
    for stale in folder.glob(f".*{NEW}"):
        with suppress(OSError):
            if time.time() - stale.stat().st_mtime > DAY:
                stale.unlink()


def _is(what: Callable[[Path], bool], file: Path) -> bool:
    try:
        return what(file)
    except (OSError, ValueError) as error:
        # As a name that is too long, or in a folder that may not be read.
        raise QuantizerFileError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _as_path(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a file; got {path!r}: {error}.") from None
