"""What control groups allow, and what has happened in them: the kernel's files."""

import os
from pathlib import Path

from tamed._os.limits import allowed_cpus, allowed_memory, oom_kills


def write(file: Path, text: str) -> None:
    """Write a file and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_cgroup_is_asked_first(tmp_path: Path) -> None:
    """Its count is that of the daemon and its workers."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self" / "cgroup", "1:name=systemd:/x\n0::/system.slice/app.service\n")
    write(proc / "vmstat", "oom_kill 9\n")
    write(cgroups / "system.slice/app.service/memory.events", "low 0\noom 3\noom_kill 2\n")
    assert oom_kills(proc, cgroups) == 2


def test_without_a_cgroup_the_whole_system_counts(tmp_path: Path) -> None:
    """A cgroup without a memory controller has no such file, nor has version 1."""
    proc = tmp_path / "proc"
    write(proc / "self" / "cgroup", "0::/\n")
    write(proc / "vmstat", "nr_free_pages 1\noom_kill 9\n")
    assert oom_kills(proc, tmp_path / "cgroup") == 9


def test_where_nothing_is_mounted_it_is_none(tmp_path: Path) -> None:
    """As in a chroot."""
    assert oom_kills(tmp_path, tmp_path) == 0


def test_the_kernel_counts() -> None:
    """The number of this system can be read."""
    assert oom_kills() >= 0


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_least_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    """That of a slice holds for its services, too; a part of a CPU counts as one."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self" / "cgroup", "0::/app.slice/app.service\n")
    for folder, cpu, memory in (("app.slice/app.service", "max", "max"), ("app.slice", "150000", "4096")):
        write(cgroups / folder / "cpu.max", f"{cpu} 100000\n")
        write(cgroups / folder / "memory.max", f"{memory}\n")
    assert allowed_cpus(proc, cgroups) == 2
    assert allowed_memory(proc, cgroups) == 4096
    write(cgroups / "app.slice/app.service/cpu.max", "5000 100000\n")
    write(cgroups / "app.slice/app.service/memory.high", "2048\n")
    assert allowed_cpus(proc, cgroups) == 1
    assert allowed_memory(proc, cgroups) == 2048


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    """In a container they are mounted as roots, and the path is that of the host."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self" / "cgroup", "9:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/x\n")
    write(cgroups / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(cgroups / "cpu" / "cpu.cfs_period_us", "100000\n")
    write(cgroups / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    assert allowed_cpus(proc, cgroups) is None
    assert allowed_memory(proc, cgroups) == MACHINE
    write(cgroups / "cpu" / "cpu.cfs_quota_us", "300000\n")
    write(cgroups / "memory" / "memory.limit_in_bytes", "65536\n")
    assert allowed_cpus(proc, cgroups) == 3
    assert allowed_memory(proc, cgroups) == 65536


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    """The CPUs are those of the process, the memory is that of the machine."""
    assert allowed_cpus(tmp_path, tmp_path) is None
    assert allowed_memory(tmp_path, tmp_path) == MACHINE
