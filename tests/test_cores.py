"""The cores of a process, with faked control groups."""

import pytest

from hedgerow import _cores
from hedgerow._cores import usable_cores


@pytest.fixture
def cores(tmp_path, monkeypatch):
    """Count the cores of a process of 16 cores whose control groups are these files."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)

    def count(groups, **files):
        for name, content in {"proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return usable_cores(tmp_path)

    return count


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000", 16),
    ],
)
def test_version_2(cores, quota, expected):
    assert cores("0::/\n", **{"sys/fs/cgroup/cpu.max": quota}) == expected


def test_version_2_the_smallest_quota_of_the_groups_around_it(cores):
    files = {"sys/fs/cgroup/pod/cpu.max": "300000 100000", "sys/fs/cgroup/pod/main/cpu.max": "max 100000"}
    assert cores("0::/pod/main\n", **files) == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", 16), ("400000\n", 4), ("150000\n", 1)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1(cores, quota, expected, mount):
    folder = f"sys/fs/cgroup/{mount}/docker/a:b"
    files = {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert cores("4:memory:/docker/a:b\n2:cpu,cpuacct:/docker/a:b\n0::/\n", **files) == expected


def test_version_1_in_a_container_that_lacks_the_folders_of_the_host(cores):
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert cores("2:cpu,cpuacct:/docker/123\n", **files) == 5


@pytest.mark.parametrize("content", ["", "100000", "a b", "100000 0"])
def test_files_that_say_something_else_set_no_limit(cores, content):
    assert cores("0::/\n", **{"sys/fs/cgroup/cpu.max": content}) == 16


def test_no_control_groups(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1
    assert usable_cores(_cores.ROOT) >= 1
