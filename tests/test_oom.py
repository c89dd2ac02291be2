"""How many processes the OOM killer has killed: the kernel's counters."""

from pathlib import Path

from tamed._os.oom import oom_kills


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
