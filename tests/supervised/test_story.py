"""The life of a daemon, as an operator sees it."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.supervised.daemon import POEM, Command, Daemon, Tamed, is_there, read_poem


def test_a_daemon_is_started_looked_at_and_stopped(tamed: Tamed) -> None:
    """It answers when start returns.

    Status, logs and stop find it; after stop nothing is left but the log. As JSON, the status has the state,
    services and endpoints, and the workers with pid, memory, CPU and connections.
    """
    daemon = tamed.start_poetry("--workers", "2")
    workers = daemon.workers()
    assert (daemon.folder / "fastpoetry.pid").read_text() == f"{daemon.pid}\n"
    expect_everything(daemon)
    assert read_poem(daemon.port) == POEM

    status = tamed("status", "fastpoetry").out
    assert status.startswith(f"fastpoetry is running: pid {daemon.pid}, up 00:00:")
    assert f"listening on 127.0.0.1:{daemon.port}\n" in status
    accepted = [
        re.search(
            rf"^{number} +{worker} +1 +ready +00:00:\d\d +\d+\.\d MB +\d+\.\d\d s +0 +(\d)$",
            status,
            re.MULTILINE,
        )
        for number, worker in enumerate(workers, 1)
    ]
    assert sorted(each[1] for each in accepted if each is not None) == ["0", "1"]
    assert re.search(rf"^    server +running +127.0.0.1:{daemon.port}$", status, re.MULTILINE)

    logs = tamed("logs", "-n", "2").out.splitlines()
    assert len(logs) == 2
    assert logs[0].endswith(f"fastpoetry is ready: pid {daemon.pid}, listening on 127.0.0.1:{daemon.port}")
    assert "fastpoetry: sending 27 bytes of poetry to 127.0.0.1:" in logs[1]

    assert tamed("stop").out == "fastpoetry has stopped\n"
    assert tamed.left() == {}
    assert not any(map(is_there, workers))
    assert "INFO tamed: SIGTERM: stopping\n" in daemon.log


def test_a_daemon_with_a_pid_file_of_ones_own_is_found(tamed: Tamed) -> None:
    """Its name and that file identify it, also after upgrade and restart; both files are removed.

    A restart starts it again as it was started: the new process has the same options and the same folder.
    """
    daemon = tamed.start("--pid-file", "own.pid", "fastpoetry", "--port", "0", "--poem", "poem.txt")
    own = tamed.folder / "own.pid"
    assert tamed("upgrade", daemon.name).status == 0  # with a reload in it
    assert own.read_text() == (daemon.folder / "fastpoetry.pid").read_text() == f"{daemon.pid}\n"
    again = ("start", "--name", "other", "--pid-file", "own.pid", "fastpoetry", "--port", "0")
    assert tamed(*again).status == 75
    done = tamed("restart", "fastpoetry", cwd="/")
    assert done.status == 0
    found = re.fullmatch(r"fastpoetry is ready: pid (\d+), listening on 127.0.0.1:(\d+)\n", done.out)
    assert found is not None
    assert int(found[1]) != daemon.pid
    assert read_poem(int(found[2])) == POEM
    assert own.read_text() == f"{found[1]}\n"
    assert tamed("status", "./own.pid").out.startswith(f"fastpoetry is running: pid {found[1]}")
    assert "fastpoetry is ready" in tamed("logs", "./own.pid").out
    assert tamed("stop", "./own.pid") == (0, "fastpoetry has stopped\n", "")
    assert not own.exists()
    assert tamed.left() == {}
    assert tamed("stop", "./own.pid").err.startswith("tamed: ./own.pid is not running; nothing runs in")


def expect_everything(daemon: Daemon) -> None:
    """Check the status of a daemon with two workers that have served nobody yet."""
    status = daemon.status()
    assert (status["name"], status["state"], status["pid"]) == ("fastpoetry", "running", daemon.pid)
    assert status["endpoints"] == daemon.addresses
    assert status["last_error"] == ""
    assert 0 < status["uptime"] < 60
    assert [worker["number"] for worker in status["workers"]] == [1, 2]
    for worker in status["workers"]:
        assert worker["state"] == "ready"
        assert worker["memory"] > 1_000_000
        assert worker["cpu"] >= 0  # a fork takes less than the kernel counts in
        assert (worker["connections"], worker["accepted"]) == (0, 0)
        assert worker["tree"]["name"] == "fastpoetry"
        (service,) = worker["tree"]["children"]
        assert [child["name"] for child in service["children"]] == ["poetry", "server"]
        assert {child["state"] for child in service["children"]} == {"running"}


def test_a_deployment_file_says_how_it_is_run(tamed: Tamed) -> None:
    """The instance has its name, and paths in it are relative to it, also that of the log."""
    (tamed.folder / "verse").mkdir()
    (tamed.folder / "verse" / "sun.txt").write_bytes(POEM)
    file = tamed.write(
        "verse/verse.toml",
        """
        [daemon]
        workers = 2
        [log]
        file = "verse.log"
        [services.sun]
        plugin = "fastpoetry"
        port = 0
        poem = "sun.txt"
        """,
    )
    daemon = tamed.start(file)
    assert daemon.name == "verse"
    assert len(daemon.workers()) == 2
    assert read_poem(daemon.port) == POEM
    assert "verse is ready" in (tamed.folder / "verse" / "verse.log").read_text()
    assert tamed("logs", "-n", "100").out == (tamed.folder / "verse" / "verse.log").read_text()
    assert tamed("stop").status == 0
    assert tamed.left() == {}


def test_a_daemon_may_work_elsewhere_and_have_a_long_run_directory(tamed: Tamed) -> None:
    """Paths are relative to the folder of the command, also if the daemon's working directory is another.

    The control socket works at a path longer than the 108 bytes of ``sun_path``.
    """
    tamed.rundir = tamed.folder / ("long" * 40)
    elsewhere = tamed.folder / "elsewhere"
    elsewhere.mkdir()
    daemon = tamed.start("--directory", "elsewhere", "fastpoetry", "--port", "0", "--poem", "poem.txt")
    (worker,) = daemon.workers()
    assert Path(f"/proc/{worker}/cwd").readlink() == elsewhere
    assert read_poem(daemon.port) == POEM
    assert len(str(daemon.folder / "fastpoetry.sock")) > 200
    assert daemon.status()["pid"] == daemon.pid
    daemon.stop()


def test_the_process_of_a_pid_file_that_is_no_instance_is_left_alone(tamed: Tamed) -> None:
    """A pid file with the pid of a foreign process, as after a reboot, is stale: the start works."""
    with Command(["sleep", "3600"]) as stranger:
        folder = tamed.rundir / "fastpoetry"
        folder.mkdir(parents=True, mode=0o700)
        tamed.rundir.chmod(0o700)
        (folder / "fastpoetry.pid").write_text(f"{stranger.pid}\n")
        for command in ("restart", "stop"):
            done = tamed(command, "fastpoetry")
            assert done.status == 69
            assert "fastpoetry is not running" in done.err
            assert stranger.poll() is None
        daemon = tamed.start_poetry()
        assert stranger.poll() is None
        daemon.stop()
        assert stranger.poll() is None


def test_of_many_starts_one_wins(tamed: Tamed) -> None:
    """Of three starts at once, one succeeds, and two report the running daemon, with status 75."""
    words = ("start", "fastpoetry", "--port", "0", "--poem", tamed.poem)
    with ThreadPoolExecutor() as pool:
        ends = [start.result() for start in [pool.submit(tamed, *words) for _ in range(3)]]
    (ready,) = [end for end in ends if end.status == 0]
    found = re.search(r"pid (\d+)", ready.out)
    assert found is not None
    losers = [end for end in ends if end.status != 0]
    assert [end.status for end in losers] == [75] * 2
    for end in losers:
        assert f"process {found[1]} runs" in end.err
        assert end.err.count("\n") == 1
    assert tamed("stop").status == 0
    assert tamed.left() == {}


def test_a_long_command_line_reaches_the_workers(tamed: Tamed) -> None:
    """It may be longer than a socket's buffer, at the start and at a reload."""
    folder = tamed.folder / "plugins"
    folder.mkdir()
    (folder / "verbose.py").write_text(
        "import logging\nfrom dataclasses import dataclass\nfrom tamed import Service, option, plugin\n"
        "@dataclass\nclass Options:\n    first: str = option('')\n    second: str = option('')\n"
        "    third: str = option('')\n"
        "@plugin\ndef verbose(options: Options) -> Service:\n    '''Says how much it was told.'''\n"
        "    told = len(options.first + options.second + options.third)\n"
        "    logging.getLogger('verbose').info('told %d', told)\n    return Service('verbose')\n"
    )
    words = [word for name in ("first", "second", "third") for word in (f"--{name}", name[0] * 120_000)]
    daemon = tamed.start("--workers", "2", "--plugin-dir", folder, "verbose", *words)
    daemon.expect_log("told 360000\n")
    assert tamed("reload").status == 0
    daemon.stop()
