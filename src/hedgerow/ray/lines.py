"""Answer the lines of a file of requests over the processes of a Ray cluster, into files of one folder.

Each process answers a part of the lines and writes one file, at once. A job that is started again skips the parts whose
files exist. `job.json` says what the job is, so that files of two jobs do not mix.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.util import ActorPool

from hedgerow._version import __version__
from hedgerow.errors import ArgumentError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.manifest import MANIFEST, read_manifest
from hedgerow.live.live import LiveIndex
from hedgerow.ray.cluster import num_cpus, own_errors, start
from hedgerow.ray.opening import Opening
from hedgerow.request_documents import RequestOptions
from hedgerow.request_lines import LINES_AT_ONCE, Line, answer_lines, reading

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

LINES_PER_FILE = 16 * LINES_AT_ONCE
JOB = "job.json"
NEW = ".new"
# How the line of an error begins; no other line does.
ERROR = b'{"line": '


@dataclass(frozen=True)
class Part:
    """Lines of the input that one file answers.

    Attributes:
        number: its number.
        start: the byte at which it starts.
        line: the number of its first line, from 1.
        requests: the number of its lines that are not empty.
    """

    number: int
    start: int
    line: int
    requests: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"part-{self.number:05}.jsonl"


def answer_file(
    path: Path,
    output: Path,
    opening: Opening,
    options: RequestOptions,
    *,
    attributes: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress = ignore_progress,
) -> int:
    """Answer the lines of a file. The files, one after the other, are what ``retrieve --input --json`` prints.

    Args:
        path: the file of requests.
        output: the folder for the answers.
        opening: the model and the index.
        options: the options of all requests.
        attributes: the attributes of the items to write. None: all.
        workers: the number of processes. Default: one per CPU of the cluster.
        progress: called as ``progress("prompts", done, total)``.

    Returns:
        The number of lines that could not be answered.

    Raises:
        ArgumentError: the file cannot be read, the folder cannot be written, or it contains something else than answers
            of this job.
        HedgerowError: the model or the index cannot be loaded.
        BackendError: a process of Ray ended.
    """
    parts, sha256 = _parts(path)
    job = _Job(path, output.absolute(), _pinned(opening, output), options, attributes)
    try:
        _claim(job.output, _facts(job, sha256))
        _answer(job, parts, workers, progress)
        return sum(_failed(job.output / part.name) for part in parts)
    except OSError as error:
        raise ArgumentError(f"the answers cannot be written to {output}: {error.strerror or error}.") from error


def _answer(job: _Job, parts: Sequence[Part], workers: int | None, progress: Progress) -> None:
    """Answer the parts whose files do not exist."""
    waiting = [part for part in parts if not (job.output / part.name).exists()]
    total = sum(part.requests for part in parts)
    done = total - sum(part.requests for part in waiting)
    progress("prompts", done, total)
    if not waiting:
        return
    start()
    with own_errors():
        worker, count = ray.remote(num_cpus=1)(_Worker), min(workers or num_cpus(), len(waiting))
        pool = ActorPool([worker.remote(job, Path.cwd()) for _ in range(count)])
        answered = pool.map_unordered(lambda worker, part: worker.answer.remote(part), waiting)
        for requests in cast("Iterable[int]", answered):
            done += requests
            progress("prompts", done, total)


@dataclass(frozen=True)
class _Job:
    """What processes need to know: see `answer_file`."""

    path: Path
    output: Path
    opening: Opening
    options: RequestOptions
    attributes: Sequence[str] | None

    def lines(self, part: Part, folder: Path) -> Iterator[Line]:
        """The lines of a part. The path is relative to a folder, and messages have it as it was given."""
        with reading(self.path), (folder / self.path).open("rb") as file:
            file.seek(part.start)
            lines = (Line(self.path, number, line) for number, line in enumerate(file, part.line) if line.strip())
            yield from islice(lines, part.requests)


class _Worker:
    """Answers parts."""

    def __init__(self, job: _Job, folder: Path) -> None:
        self.job, self.folder = job, folder

    @cached_property
    def retriever(self) -> Retriever:
        """Loaded by the first call, whose errors Ray passes on as they are."""
        return self.job.opening.retriever()

    def answer(self, part: Part) -> int:
        """Answer the lines of a part, write its file, and return the number of the lines."""
        job, retriever = self.job, self.retriever
        new = job.output / (part.name + NEW)
        lines = job.lines(part, self.folder)
        with new.open("w", encoding="utf-8", newline="\n") as file:
            while some := list(islice(lines, LINES_AT_ONCE)):
                found = answer_lines(retriever, some, job.options)
                file.writelines(answer.text(job.attributes) + "\n" for answer in found)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, job.output / part.name)
        return part.requests


def _parts(path: Path) -> tuple[list[Part], str]:
    """The parts of a file, and its SHA-256.

    Raises:
        ArgumentError: it cannot be read, or has no lines.
    """
    parts, content = [], hashlib.sha256()
    with reading(path), path.open("rb") as file:
        start, first, requests, offset = 0, 1, 0, 0
        for number, line in enumerate(file, 1):
            if requests == LINES_PER_FILE:
                parts.append(Part(len(parts), start, first, requests))
                start, first, requests = offset, number, 0
            content.update(line)
            requests += bool(line.strip())
            offset += len(line)
    if requests:
        parts.append(Part(len(parts), start, first, requests))
    if not parts:
        raise ArgumentError(f"{path} contains no prompt.")
    return parts, content.hexdigest()


def _pinned(opening: Opening, output: Path) -> Opening:
    """With the number of a version of a live index, so that all processes use one: that of the job, or the current."""
    opened = opening.open()
    if not isinstance(opened, LiveIndex) or opening.version is not None:
        return opening
    begun = (_found(output) or {}).get("version")
    return replace(opening, version=begun if isinstance(begun, int) else opened.version.number)


def _found(output: Path) -> dict[str, Any] | None:
    """What `job.json` of a folder says; None if there is none."""
    try:
        found = json.loads((output / JOB).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _facts(job: _Job, sha256: str) -> dict[str, Any]:
    """What the answers of a job depend on."""
    opening, index = job.opening, job.opening.index
    is_saved = index is not None and (index / MANIFEST).is_file()
    facts = {
        "hedgerow": __version__,
        "input": sha256,
        "model": opening.model,
        "index": None if index is None else str(index),
        "index_sha256": read_manifest(index)["sha256"] if index is not None and is_saved else None,
        "version": opening.version,
        "loading": opening.options,
        "options": asdict(job.options),
        "columns": None if job.attributes is None else list(job.attributes),
        "lines_per_file": LINES_PER_FILE,
    }
    # As they are read again.
    return json.loads(json.dumps(facts, default=str))


def _claim(output: Path, facts: dict[str, Any]) -> None:
    """Make the folder for the answers of a job, or check that it is that.

    Raises:
        ArgumentError: it contains something else.
    """
    if not output.exists():
        output.mkdir(parents=True)
    if not output.is_dir():
        raise ArgumentError(f"{output} is a file; the answers need a folder. Choose another path.")
    if not any(output.iterdir()):
        (output / (JOB + NEW)).write_text(json.dumps(facts, indent=1))
        os.replace(output / (JOB + NEW), output / JOB)
        return
    found = _found(output)
    if found is None:
        raise ArgumentError(f"{output} contains something else than the answers of a job. Choose another folder.")
    other = next((name for name in facts if facts[name] != found.get(name)), None)
    if other is not None:
        raise ArgumentError(
            f"{output} contains the answers of another job: its {other!r} was {found.get(other)!r}, and is now "
            f"{facts[other]!r}. Choose another folder, or remove this one."
        )
    for new in output.glob(f"*{NEW}"):
        new.unlink()


def _failed(path: Path) -> int:
    """The number of errors in a file of answers."""
    with path.open("rb") as file:
        return sum(line.startswith(ERROR) for line in file)
