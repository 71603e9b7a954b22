"""The CPU cores that this process may use: by its affinity, and by the CPU quota of its container."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path("/")


@cache
def usable_cores(root: Path = ROOT) -> int:
    """The number of cores that this process may use, at least 1. A quota of 2.5 cores counts as 2.

    Args:
        root: the folder that contains `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota(root))))


def _quota(root: Path) -> float:
    """The CPU quota in cores: the smallest of the process's control groups and of those that contain them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return float("inf")
    quotas = [float("inf")]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no names of controllers. In a container, folders of the host may be missing: the root is there.
        mounts = [controllers, "cpu"] if controllers else ["", "unified"]
        for folder in (PurePosixPath(group), *PurePosixPath(group).parents):
            for mount in mounts:
                quotas.append(_quota_of(root / "sys/fs/cgroup" / mount / str(folder).lstrip("/")))
    return min(quotas)


def _quota_of(folder: Path) -> float:
    """The quota of one control group in cores; infinity if it has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else float("inf")
        except (OSError, ValueError, ZeroDivisionError):
            # There is no such file, or it says "max".
            continue
    return float("inf")
