"""The conditions of a measurement: processor, memory, versions and commit, without host names or paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._compiled import PARALLEL_FROM, thread_count

PACKAGES = ("hedgerow", "numpy", "torch", "triton", "jax", "transformers", "marisa-trie", "xgrammar")
PACKAGES += ("llguidance", "outlines-core", "rectokens")

# Warn from this load average per core, and from these shares of the time of all cores.
BUSY_LOAD, BUSY_SHARE, STOLEN_SHARE = 0.5, 0.1, 0.02


def conditions(device: str | None = None) -> dict[str, Any]:
    """The machine, the commit and the versions."""
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gb": _memory_gb(),
        "gpu": _gpu(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": threads(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of the measured packages, as far as they are installed."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def set_threads(count: int | None) -> None:
    """Set the number of threads of PyTorch and the compiled kernel. None: keep their defaults, all cores."""
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def threads() -> dict[str, int]:
    """Number of threads of each loaded library. XLA uses all cores; the NumPy operations used here use one."""
    counts = {"numpy": 1}
    if "torch" in sys.modules:
        counts["torch"] = sys.modules["torch"].get_num_threads()
    counts["native"] = thread_count(PARALLEL_FROM)
    if "jax" in sys.modules:
        counts["jax"] = _cores()
    return counts


@dataclass(frozen=True)
class CpuTimes:
    """CPU time so far in seconds, of all cores together.

    Attributes:
        total: the time of all cores, idle or not.
        busy: the time that any process used.
        stolen: the time that the hypervisor gave to other machines.
        own: the time that this process and its ended children used.
    """

    total: float
    busy: float
    stolen: float
    own: float


def cpu_times(root: Path = Path("/")) -> CpuTimes | None:
    """CPU time so far; None where there is no /proc/stat."""
    try:
        fields = (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, idle, waiting, interrupts, soft, stolen = (int(field) for field in fields)
    except (OSError, ValueError):
        return None
    busy = user + nice + system + interrupts + soft
    second = os.sysconf("SC_CLK_TCK")
    total = busy + idle + waiting + stolen
    return CpuTimes(total / second, busy / second, stolen / second, sum(os.times()[:4]))


def load_warnings() -> list[str]:
    """What the load average says about other processes, before a measurement."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= BUSY_LOAD * cores:
        return []
    return [
        f"the load average is {load:.1f} on {cores} cores: if other processes use them, the times will be too long."
    ]


def contention_warnings(before: CpuTimes | None, after: CpuTimes | None) -> list[str]:
    """What other processes and other machines have taken during a measurement."""
    if before is None or after is None or after.total <= before.total:
        return []
    total = after.total - before.total
    others = (after.busy - before.busy - (after.own - before.own)) / total
    stolen = (after.stolen - before.stolen) / total
    found = []
    if others > BUSY_SHARE:
        found.append(
            f"other processes used {others:.0%} of the cores during the measurement. Repeat it on an idle machine."
        )
    if stolen > STOLEN_SHARE:
        found.append(f"other virtual machines took {stolen:.0%} of the CPU time during the measurement. Repeat it.")
    return found


@cache
def read_gb_per_second() -> float:
    """Memory bandwidth of one thread in GB/s, the best of five passes over 128 MB, for the lower bounds on a CPU."""
    block = np.ones(1 << 24, np.int64)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        block.max()
        best = min(best, time.perf_counter() - started)
    return block.nbytes / best / 1e9


def reset_peak() -> None:
    """Reset the peak memory of this process, as recorded by Linux, to its present resident memory."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory_bytes(*, peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its peak. Without /proc, always the peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (ValueError, OSError, AttributeError):
        return None


def _gpu(device: str | None) -> str | None:
    if device is None or not device.startswith("cuda") or "torch" not in sys.modules:
        return None
    return sys.modules["torch"].cuda.get_device_name(device)


def _commit() -> str | None:
    """The commit of the checkout that contains this code, with "+changes" if tracked files differ from it."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
