"""The folders of a training: a hidden folder with checkpoints beside the output, which is written at the end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from safetensors import SafetensorError, safe_open

from hedgerow.errors import ArgumentError
from hedgerow.index.locks import LockedError, locked
from hedgerow.semantic.files import write_whole
from hedgerow.training.splits import Split
from hedgerow.trie_index import TrieIndex

RUN, MODEL = "run.json", "model"
# The Trainer writes this file of a checkpoint last.
STATE = "trainer_state.json"
# With fewer free bytes, a file was probably cut off by the end of the disk.
LEAST_FREE = 1 << 16


@dataclass(frozen=True)
class Folders:
    """The folders of one training.

    Attributes:
        output: the folder to write.
    """

    output: Path

    @property
    def hidden(self) -> Path:
        """The folder of the training, which exists until it is done."""
        return self.output.parent / f".{self.output.name}.training"

    def last_checkpoint(self) -> Path | None:
        """The complete checkpoint with the largest number of steps; None if there is none."""
        found = [path for path in self.hidden.glob("checkpoint-*") if is_complete(path)]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    @contextmanager
    def opened(self, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Path | None]:
        """Prepare the hidden folder for the main process, and give the checkpoint to resume from.

        Args:
            facts: what must be the same in a training that is resumed.
            resume: continue an interrupted training.
            overwrite: replace the output, and discard an interrupted training.

        Raises:
            ArgumentError: the output exists, there is no training to resume, it had other facts, or it still runs.
        """
        if self.output.exists() and not overwrite:
            raise ArgumentError(
                f"{self.output} exists already. Choose another path, or pass overwrite=True, or --overwrite."
            )
        self._check_replaceable()
        if resume and not (self.hidden / RUN).is_file():
            raise ArgumentError(f"there is no interrupted training of {self.output} to resume. Train without resume.")
        self.hidden.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.hidden, timeout=0):
                yield self._prepared(facts, resume=resume, overwrite=overwrite)
        except LockedError:
            raise ArgumentError(
                f"another process is training {self.output}. Wait for it, or choose another path."
            ) from None

    def _prepared(self, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
        file, checkpoint = self.hidden / RUN, self.last_checkpoint()
        text = json.dumps(dict(facts), indent=2, sort_keys=True, default=str) + "\n"
        if resume:
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ArgumentError(
                    f"{file} is damaged: {error}. Start the training anew with overwrite=True, or --overwrite."
                ) from None
            differing = differences(before, json.loads(text))
            if differing:
                raise ArgumentError(
                    f"the interrupted training of {self.output} had other values of {', '.join(differing)}. Pass the "
                    "same data and settings, or start anew with overwrite=True, or --overwrite."
                )
            return checkpoint
        if checkpoint is not None and not overwrite:
            raise ArgumentError(
                f"an interrupted training of {self.output} exists, up to {checkpoint.name}. Continue it with "
                "resume=True, or --resume; or discard it with overwrite=True, or --overwrite."
            )
        for path in self.hidden.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        write_whole({file: lambda new: new.write(text.encode())})
        return None

    def _check_replaceable(self) -> None:
        """Check that the output is not the folder of something else."""
        if self.output.is_file():
            raise ArgumentError(f"{self.output} is a file; a model is a folder. Choose another path.")
        if self.output.is_dir() and any(self.output.iterdir()) and not (self.output / "tokens.json").is_file():
            raise ArgumentError(f"{self.output} is a folder without a trained model. Choose another path.")

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Say what to do if the disk is full. PyTorch and safetensors have errors of their own for that.

        Raises:
            ArgumentError: it is.
        """
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            if not _is_full(self.output.parent, error):
                raise
            raise ArgumentError(
                f"the disk of {self.hidden} is full, so that the training cannot be written there. Free some space, "
                "and continue from the last complete checkpoint with resume=True, or --resume."
            ) from error

    def finish(self) -> None:
        """Rename the model in the hidden folder to the output, and remove the hidden folder."""
        old = self.hidden / "old"
        if self.output.exists():
            os.replace(self.output, old)
        os.replace(self.hidden / MODEL, self.output)
        shutil.rmtree(self.hidden)


def _is_full(folder: Path, error: Exception) -> bool:
    """Whether an error says that a disk is full, or the disk of a folder is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    with suppress(OSError):
        return shutil.disk_usage(folder).free < LEAST_FREE
    return False


def is_complete(checkpoint: Path) -> bool:
    """Whether the Trainer has written all files of a checkpoint, and none was cut off since."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        for path in checkpoint.iterdir():
            if path.suffix == ".safetensors":
                with safe_open(path, framework="numpy"):
                    pass
            elif path.suffix in (".pt", ".pth"):
                with ZipFile(path):
                    pass
    except (OSError, ValueError, SafetensorError, BadZipFile):
        return False
    return True


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The names of values that differ, in nested mappings."""
    names = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            names += differences(before, now)
        elif before != now:
            names.append(name)
    return names


def fingerprint(index: TrieIndex, split: Split) -> dict[str, str]:
    """Checksums of the SIDs of an index, and of a split."""
    arrays = {
        "index": [index.sids_of(index.item_ids)],
        "histories": [split.histories.items, split.histories.starts],
        "split": [split.train, split.validation],
    }
    return {name: digest(parts) for name, parts in arrays.items()}


def digest(arrays: list[np.ndarray]) -> str:
    """The checksum of arrays."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.dtype.str} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
