"""How many processors a container grants: the files of control groups, versions 1 and 2, as Linux writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from marigold_c import _C, _testing

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:28 {root} /sys/fs/cgroup/cpuset rw,nosuid shared:10 - cgroup cgroup rw,cpuset\n"
    "32 30 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
)


def system(root: Path, mountinfo: str, cgroup: str, files: dict[str, str]) -> int:
    """What is granted by a system that has these files below /sys/fs/cgroup."""
    own = root / "proc" / "self"
    own.mkdir(parents=True)
    (own / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/root rw\n" + mountinfo)
    (own / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return int(_testing.quota_processors(str(root)))


@pytest.mark.parametrize(
    ("text", "processors"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # rounded up
        ("10000 100000\n", 1),
        ("max 100000\n", 0),
        ("", 0),
        ("many\n", 0),
        ("-1 100000\n", 0),
        ("100000 0\n", 0),
        ("9223372036854775807 1\n", 0),
    ],
)
def test_version_2(tmp_path: Path, text: str, processors: int) -> None:
    """A container with a name space of its own: its group is the root that it sees."""
    assert system(tmp_path, V2.format(root="/"), "0::/\n", {"cpu.max": text}) == processors


def test_version_2_the_smallest_limit_of_all_groups_above(tmp_path: Path) -> None:
    files = {
        "user.slice/cpu.max": "300000 100000\n",
        "user.slice/a/cpu.max": "max 100000\n",
        "user.slice/a/job.scope/cpu.max": "700000 100000\n",
        "cpu.max": "max 100000\n",
        "elsewhere/cpu.max": "100000 100000\n",
    }
    assert system(tmp_path, V2.format(root="/"), "0::/user.slice/a/job.scope\n", files) == 3


def test_version_2_the_group_is_what_is_mounted(tmp_path: Path) -> None:
    """Without a name space the group's path is the host's, and so is the root of what is mounted."""
    files = {"cpu.max": "250000 100000\n", "inner/cpu.max": "100000 100000\n"}
    assert system(tmp_path / "a", V2.format(root="/docker/1f"), "0::/docker/1f\n", files) == 3
    assert system(tmp_path / "b", V2.format(root="/docker/1f"), "0::/docker/1f/inner\n", files) == 1
    assert system(tmp_path / "c", V2.format(root="/docker/1f"), "0::/docker/1ff\n", files) == 3
    assert system(tmp_path / "d", V2.format(root="/"), "0::/../other\n", files) == 3


@pytest.mark.parametrize(("quota", "processors"), [("400000\n", 4), ("50000\n", 1), ("-1\n", 0)])
@pytest.mark.parametrize("root", ["/", "/docker/1f"])
def test_version_1(tmp_path: Path, quota: str, processors: int, root: str) -> None:
    group = "cpu,cpuacct" if root != "/" else "cpu,cpuacct/docker/1f"
    cgroup = "12:cpuset:/docker/1f\n5:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f\n0::/docker/1f\n"
    files = {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": "100000\n"}
    assert system(tmp_path, V1.format(root=root), cgroup, files) == processors


def test_version_1_the_smallest_limit_of_all_groups_above(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/pod/cpu.cfs_quota_us": "200000\n",
        "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/pod/one/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/pod/one/cpu.cfs_period_us": "100000\n",
    }
    assert system(tmp_path, V1.format(root="/"), "5:cpu,cpuacct:/pod/one\n", files) == 2


def test_both_versions_at_once(tmp_path: Path) -> None:
    """Version 2 is mounted for other controllers only."""
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "50000\n"}
    unified = V2.format(root="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    assert system(tmp_path, unified + V1.format(root="/"), "5:cpu,cpuacct:/\n0::/\n", files) == 2


def test_paths_with_blanks_and_without_end(tmp_path: Path) -> None:
    files = {"my group/cpu.max": "300000 100000\n"}
    mount = V2.format(root="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/my\\040group ")
    assert system(tmp_path / "a", mount, "0::/\n", files) == 3
    assert system(tmp_path / "b", V2.format(root="/"), "0::/" + "x/" * 5000 + "\n", {"cpu.max": "300000 100000\n"}) == 0
    assert system(tmp_path / "c", "31 23\n - cgroup2\n" + "y" * 9000 + "\n", "0::/\n", {}) == 0
    assert _testing.quota_processors(str(tmp_path / "nothing")) == 0


def test_the_default_follows_this_systems_quota() -> None:
    quota = _testing.quota_processors("")
    script = "import os, marigold_c; print(marigold_c._C.available_threads(), len(os.sched_getaffinity(0)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    available, allowed = map(int, done.stdout.split())
    assert available == (min(quota, allowed) if quota else allowed) == _C.available_threads()
