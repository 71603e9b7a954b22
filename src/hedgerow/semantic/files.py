"""A quantizer on disk: one safetensors file, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hedgerow.errors import ArgumentError, QuantizerFileError
from hedgerow.index.files import sync
from hedgerow.semantic.quantizer import Quantizer

FORMAT = "hedgerow-quantizer"
VERSION = 1
# The one key of the file's metadata: safetensors keeps several in no order.
KEY = "hedgerow"


def save_quantizer(quantizer: Quantizer, path: str | Path) -> None:
    """Writes a quantizer to a file: `Quantizer.save`."""
    from safetensors.numpy import save

    file = _as_path(path)
    if file.exists():
        try:
            load_quantizer(file)
        except QuantizerFileError as error:
            raise QuantizerFileError(f"{file} is there, and no quantizer to replace. Choose another path.") from error
    tensors = {f"codebook.{level:03}": codebook for level, codebook in enumerate(quantizer.codebooks)}
    if quantizer.rotation is not None:
        tensors["rotation"] = quantizer.rotation
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "method": quantizer.method,
        "codebook_sizes": list(quantizer.codebook_sizes),
        "separate_codes": quantizer.separate_codes,
    }
    content = save(tensors, {KEY: json.dumps(facts | {"sha256": _digest(facts, tensors)}, sort_keys=True)})
    try:
        write_whole(file, lambda new: new.write(content))
    except OSError as error:
        raise QuantizerFileError(f"the quantizer cannot be saved to {file}: {error.strerror or error}.") from error


def load_quantizer(path: str | Path) -> Quantizer:
    """Returns the quantizer that a file holds: `Quantizer.load`."""
    from safetensors import SafetensorError, safe_open

    file = _as_path(path)
    if not file.is_file():
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


def _made(file: Path, facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> Quantizer:
    rotation = tensors.pop("rotation", None)
    codebooks = tuple(tensors[name] for name in sorted(tensors))
    try:
        return Quantizer(facts["method"], codebooks, tuple(facts["codebook_sizes"]), rotation, facts["separate_codes"])
    except (ArgumentError, KeyError, TypeError) as error:
        raise QuantizerFileError(f"{file} does not hold a quantizer: {error}") from None


def _digest(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 of all that a file says."""
    content = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        content.update(np.ascontiguousarray(tensors[name]).data)
    return content.hexdigest()


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file by way of another one beside it: whoever reads `path` sees what was there, or all that is new."""
    new = path.with_name(f".{path.name}.{os.getpid()}-new")
    try:
        with open(new, "wb") as file:
            write(file)
        sync(new)
        os.replace(new, path)
        sync(path.parent)
    finally:
        new.unlink(missing_ok=True)


def _as_path(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a file; got {path!r}: {error}.") from None
