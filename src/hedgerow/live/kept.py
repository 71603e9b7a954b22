"""The versions that a live index keeps: listed, checked, pruned, and served again after damage."""

from __future__ import annotations

import logging

from hedgerow.errors import IndexFileError
from hedgerow.index.files import sync
from hedgerow.index.manifest import LIVE, MANIFEST
from hedgerow.index.verify import verify_trie
from hedgerow.live.manifest import ENTRY, DamagedError, State, VersionInfo
from hedgerow.live.store import Store
from hedgerow.live.version_folders import VERSIONS

LOGGER = logging.getLogger(__name__)


def read_entries(store: Store, state: State | None) -> tuple[tuple[VersionInfo, ...], dict[int, str]]:
    """Read the entries of all versions that are kept.

    Args:
        store: the files of the live index.
        state: the manifest, which contains the entry of the current version; None if it is damaged.

    Returns:
        The entries that can be read, by ascending number; and the number of each other version, and what is wrong
        with its entry.
    """
    infos, damaged = [], {}
    for number in store.numbers(state):
        if state is not None and number == state.current.number:
            infos.append(state.current)
            continue
        try:
            infos.append(store.entry(number))
        except IndexFileError as error:
            # Versions may have been pruned since their numbers were read.
            if store.folder(number).exists():
                damaged[number] = str(error)
    return tuple(infos), damaged


def survey(store: Store) -> tuple[State | None, tuple[VersionInfo, ...], dict[str, str]]:
    """Read the manifest and all entries, also if some are damaged.

    Returns:
        The manifest, or None if it is damaged; the entries that can be read; and what is wrong with the others, by the
        number of the version, and with the manifest, by its name.

    Raises:
        IndexFileError: there is no live index, or the folder cannot be read.
    """
    state, problems = None, {}
    try:
        state = store.read()
    except DamagedError as error:
        problems[LIVE] = str(error)
    infos, damaged = read_entries(store, state)
    return state, infos, problems | {str(number): fault for number, fault in damaged.items()}


def faults(store: Store) -> dict[int, str]:
    """Check all files of all versions: see `LiveIndex.verify`."""
    state, found = store.read(), {}
    for number in sorted({*store.numbers(state), state.current.number}):
        try:
            _check(store, state, number, found)
        except (IndexFileError, OSError) as error:
            # Versions may have been pruned meanwhile, but not the current one.
            if store.folder(number).exists() or number == store.read().current.number:
                found[number] = str(error)
    return found


def _check(store: Store, state: State, number: int, found: dict[int, str]) -> None:
    """Check the files of one version, after those of the versions before it.

    Raises:
        IndexFileError: a file is missing or damaged.
        OSError: a file cannot be read.
    """
    info = store.entry(number)
    version = store.load(info, verify="none")
    if number == state.current.number and info != state.current:
        raise IndexFileError(f"{store.folder(number) / ENTRY} differs from the entry in {store.path / LIVE}.")
    if info.index == number:
        verify_trie(store.folder(number))
    elif info.index in found:
        raise IndexFileError(found[info.index])
    del version


def prune(store: Store, keep: int) -> tuple[list[int], dict[int, str]]:
    """Remove old versions: see `LiveIndex.prune`. Versions whose entry is damaged are left alone.

    Returns:
        The numbers of the removed versions; and what is wrong with each entry that is damaged.
    """
    state = store.read()
    store.clean(state.next)
    infos, damaged = read_entries(store, state)
    latest = {info.number for info in infos[max(0, len(infos) - keep) :]} | {state.current.number}
    usable = latest | {info.number for info in infos if store.pinned(info.number)}
    needed = usable | {info.index for info in infos if info.number in usable} | {state.current.index}
    # The entry of a damaged version names its index. If it would be kept, keep every index that it may use.
    unknown = [number for number in damaged if number > min(latest) and not (store.folder(number) / MANIFEST).exists()]
    needed |= {info.number for info in infos if info.number < max(unknown, default=0) and info.index == info.number}
    removed = [number for info in reversed(infos) if (number := info.number) not in needed and store.move(number)]
    if removed:
        sync(store.path / VERSIONS)
        store.clean(state.next)
    LOGGER.info("%s: deleted the versions %s; kept %s", store.path, sorted(removed), sorted(needed))
    return sorted(removed), damaged


def recover(store: Store) -> None:
    """Make the latest correct version current, if the current one or the manifest is damaged.

    The current version is preferred, then the latest one that is not later. If the manifest is damaged, it is written
    again from the entries of the versions. If only the entry of the current version is damaged, it is written again.

    Raises:
        IndexFileError: there is no correct version, or no live index.
    """
    # Before the lock, which would name the folder's lock if there is no live index.
    survey(store)
    with store.locked():
        state, infos, damaged = survey(store)
        problems = {int(name): f"version {name}: {fault}" for name, fault in damaged.items() if name != LIVE}
        for info in _candidates(store, state, infos):
            try:
                store.load(info, verify="full")
            except (IndexFileError, OSError) as error:
                problems[info.number] = f"version {info.number}: {error}"
                continue
            _serve(store, state, info)
            for problem in problems.values():
                LOGGER.warning("%s: %s", store.path, problem)
            LOGGER.info("%s: version %d is current", store.path, info.number)
            return
    listed = " ".join(problems[number] for number in sorted(problems, reverse=True))
    raise IndexFileError(
        f"{store.path} has no correct version to serve. {listed} Restore the folder from a copy, or create another "
        f"live index from an index in {store.path / VERSIONS} that hr.load_index reads."
    )


def _candidates(store: Store, state: State | None, infos: tuple[VersionInfo, ...]) -> list[VersionInfo]:
    """The entries of the versions that can be served again, the best first."""
    latest_first = list(reversed(infos))
    if state is None:
        return latest_first
    current = state.current
    earlier = [info for info in latest_first if info.number < current.number]
    try:
        # The folder may have been replaced by that of another version with the same number.
        own = [store.entry(current.number)]
    except IndexFileError:
        own = []
    return [current, *(info for info in own if info != current), *earlier]


def _serve(store: Store, state: State | None, info: VersionInfo) -> None:
    """Write the entry of a correct version and the manifest, if they differ from it."""
    try:
        intact = store.entry(info.number) == info
    except IndexFileError:
        intact = False
    if not intact:
        store.write_entry(info)
    if state is None:
        store.switch(State(info, store.numbers(None)[-1] + 1))
    elif state.current != info:
        store.switch(State(info, state.next))
