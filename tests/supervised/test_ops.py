"""The operations endpoint of real daemons: health, status, and metrics that no death takes away."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for

APPLICATION = """
from prometheus_client import Counter, Gauge, Histogram, Info

from tamed import Application, StreamServer

SERVED = Counter("served", "Served clients.", ["kind"])
BUSY = Gauge("busy", "Clients that are being served.", multiprocess_mode="livesum")
LAST = Gauge("last", "A level of each worker.")
TOOK = Histogram("took_seconds", "How long it took.", buckets=[1])
Info("build", "What runs.").info({"version": "1"})
LAST.set(3)


async def serve(reader, writer):
    BUSY.inc()
    await reader.readline()
    SERVED.labels("a").inc()
    TOOK.observe(0.5)
    writer.write(b"served")
    BUSY.dec()
    writer.close()


application = Application("counting", StreamServer("unix:counting.sock", serve))
"""


class _Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self.path))


def get(path: Path, target: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Request a path of the endpoint, again while the supervisor is late; return the status and the body."""

    def answer() -> tuple[int, str] | None:
        status, text = get_once(path, target, method, **headers)
        return None if is_late(status, text) else (status, text)

    return wait_for(target, answer)


def listens(path: Path) -> bool:
    """Return whether a server listens on a socket; its file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        return sock.connect_ex(str(path)) == 0


def is_late(status: int, text: str) -> bool:
    """Return whether an answer says that the supervisor had no time, as on a machine that is overloaded."""
    return status == 503 and "has not answered within" in text


def get_once(path: Path, target: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Request a path of the endpoint; return the status and the body."""
    connection = _Connection(path)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(path: Path) -> dict[str, float]:
    """Return the samples that the endpoint shows, by their text."""
    status, text = get(path, "/metrics")
    assert status == 200, text
    return samples_of(text)


def samples_of(text: str) -> dict[str, float]:
    """Return the samples of an answer, by their text."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def be_served(folder: Path, times: int) -> None:
    """Be a client so many times, one after another."""
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(folder / "counting.sock"))
            client.sendall(b"\n")
            assert client.makefile("rb").read() == b"served"


@pytest.fixture
def ops(tamed: Tamed) -> Path:
    """The socket of the operations endpoint."""
    tamed.write("counting.py", APPLICATION)
    return tamed.folder / "ops.sock"


def start(tamed: Tamed, *options: str) -> Daemon:
    """Start a daemon whose clients are counted."""
    return tamed.start("--workers", "2", "--ops", "unix:ops.sock", *options, "counting.py")


def test_metrics_of_several_workers_are_merged(tamed: Tamed, ops: Path) -> None:
    """Each kind in its way, the daemon's own among them, and without a pid.

    The process of the endpoint can be ended: another one takes its place, with all that was counted.
    """
    daemon = start(tamed)
    be_served(tamed.folder, 5)
    for number, how in ((signal.SIGTERM, "ended with status 0"), (signal.SIGKILL, "was ended by SIGKILL")):
        assert scrape(ops)['served_total{kind="a"}'] == 5
        pid = end_operations_process(tamed, number)
        assert scrape(ops)['served_total{kind="a"}'] == 5
        assert daemon.expect_log(rf"operations process {pid}: {how}")
    [_, lost] = daemon.workers()
    os.kill(lost, signal.SIGKILL)
    daemon.wait_workers(2, without=[lost])
    assert tamed("reload", daemon.name).status == 0
    samples = scrape(ops)
    assert samples['served_total{kind="a"}'] == samples["took_seconds_count"] == 5
    assert samples["took_seconds_sum"] == 5 / 2
    assert samples["busy"] == 0
    assert samples['build_info{version="1"}'] == 1
    assert samples['tamed_worker_ends_total{reason="SIGKILL"}'] == 1
    assert samples["tamed_worker_restarts_total"] == 1
    assert samples['tamed_reload_seconds_count{result="ok"}'] == 1
    assert not [name for name in samples if "pid" in name]
    daemon.stop()


def test_preloaded_workers_count_for_themselves(tamed: Tamed, ops: Path) -> None:
    """Workers forked from an application that has made its metrics have them in tables of their own.

    The names, types and texts of the metrics are those that Prometheus recommends, if its tool is here.
    """
    daemon = start(tamed, "--preload")
    be_served(tamed.folder, 10)
    samples = scrape(ops)
    assert samples['served_total{kind="a"}'] == 10
    assert (samples['last{worker="1"}'], samples['last{worker="2"}']) == (3, 3)
    if shutil.which("promtool") is not None:
        text = get(ops, "/metrics")[1]
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    daemon.stop()


def test_endpoint_answers_while_the_daemon_starts_and_stops(tamed: Tamed, ops: Path) -> None:
    """A daemon that starts is alive and not ready; one that drains is alive and not ready any more."""
    gate = tamed.folder / "gate"
    os.mkfifo(gate)
    text = APPLICATION.replace("application = ", f'open("{gate}").read()\napplication = ')
    tamed.write("counting.py", text)
    with tamed.foreground("run", "--workers", "1", "--ops", "unix:ops.sock", "counting.py") as process:
        wait_for("the endpoint", lambda: listens(ops))
        assert get(ops, "/livez") == (200, "ok")
        assert get(ops, "/startupz")[0] == get(ops, "/readyz")[0] == 503
        gate.write_text("go on")
        wait_for("the start", lambda: get(ops, "/startupz") == (200, "ok"))
        assert get(ops, "/readyz") == (200, "ok")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(tamed.folder / "counting.sock"))
            wait_for("the client", lambda: scrape(ops)["busy"] == 1)
            process.signal(signal.SIGTERM)
            wait_for("the drain", lambda: get(ops, "/readyz")[0] == 503)
            assert "[-]not-stopping failed: the daemon is stopping" in get(ops, "/readyz")[1]
            assert get(ops, "/livez") == (200, "ok")
            client.sendall(b"\n")
            assert client.recv(10) == b"served"
        assert process.wait() == 0
    assert not ops.exists()


FRAGILE = """
import asyncio
import logging

from tamed import Application, Backoff, Restart, Service, StreamServer


class Fragile(Service):
    name = "fragile"
    restart = Restart("always", limit=None, backoff=Backoff(first=0))

    async def run(self):
        if not self.restarts:
            logging.getLogger("fragile").error("about to fail")
            raise OSError("failed")
        await asyncio.Event().wait()


async def serve(reader, writer):
    writer.close()


application = Application("fragile", StreamServer("tls://127.0.0.1:0?cert=server.pem", serve), Fragile())
"""


def test_metrics_show_restarts_certificates_and_the_log(tamed: Tamed, ops: Path) -> None:
    """Each from what the workers and the supervisor have; what is counted survives an upgrade."""
    end = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    pem = tamed.folder / "server.pem"
    trustme.CA().issue_cert("localhost", not_after=end).private_key_and_cert_chain_pem.write_to_path(pem)
    tamed.write("fragile.py", FRAGILE)
    daemon = tamed.start("--workers", "2", "--ops", "unix:ops.sock", "fragile.py")
    restarts = 'tamed_service_restarts_total{service="fragile"}'
    wait_for("the restarts", lambda: scrape(ops).get(restarts) == 2)
    samples = scrape(ops)
    at = f"127.0.0.1:{daemon.port}"
    certificate = f'{{certificate="server.pem",endpoint="{at}"}}'
    assert samples[f"tamed_certificate_end_timestamp_seconds{certificate}"] == end.timestamp()
    assert samples['tamed_log_records_total{level="ERROR"}'] == 4  # what it logs, and that it has failed
    assert samples['tamed_log_records_total{level="CRITICAL"}'] == 0
    assert samples["tamed_log_lost_lines_total"] == samples["tamed_log_unsent_lines_total"] == 0
    assert tamed("upgrade", daemon.name).status == 0
    wait_for("the restarts of the next generation", lambda: scrape(ops)[restarts] == 4)
    assert scrape(ops)['tamed_log_records_total{level="ERROR"}'] == 8
    [shown] = json.loads(get(ops, "/status")[1])["certificates"]
    assert (shown["endpoint"], shown["file"]) == (at, "server.pem")
    assert datetime.fromisoformat(shown["ends"]) == end
    line = f"the certificate of {at} ends {shown['ends']}: server.pem"
    assert line in tamed("status", daemon.name).out.splitlines()
    assert line in get(ops, "/status?format=text")[1].splitlines()
    assert at in get(ops, "/")[1]
    daemon.stop()


def test_endpoint_may_require_certificates_of_clients(tamed: Tamed, ops: Path) -> None:
    """A client without a certificate gets no answer; the metrics and the status have the endpoint's own."""
    end = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    authority = trustme.CA()
    pem, trusted = tamed.folder / "ops.pem", tamed.folder / "clients.pem"
    authority.issue_cert("localhost", not_after=end).private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(trusted)
    endpoint = "tls://127.0.0.1:0?cert=ops.pem&client_ca=clients.pem"
    daemon = tamed.start("--workers", "1", "--ops", endpoint, "counting.py")
    at = daemon.expect_log(r"\d INFO tamed.net: listening on (?:tls://)?(127.0.0.1:\d+)")[1]
    stranger = ssl.create_default_context(cafile=trusted)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get_over_tls(at, "/metrics", stranger)
    known = ssl.create_default_context(cafile=trusted)
    authority.issue_cert("prometheus@example.org").configure_cert(known)
    samples = samples_of(get_over_tls(at, "/metrics", known))
    labels = f'{{certificate="{pem}",endpoint="{at}"}}'
    assert samples[f"tamed_certificate_end_timestamp_seconds{labels}"] == end.timestamp()
    [shown] = daemon.status()["certificates"]
    assert (shown["endpoint"], shown["file"]) == (at, str(pem))
    assert datetime.fromisoformat(shown["ends"]) == end
    daemon.stop()


def get_over_tls(address: str, target: str, context: ssl.SSLContext) -> str:
    """Return the body of an answer that is good."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection("localhost", int(port), context=context, timeout=PATIENCE)
    connection.sock = context.wrap_socket(
        socket.create_connection((host, int(port)), PATIENCE), server_hostname="localhost"
    )
    with closing(connection):
        connection.request("GET", target)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def test_clients_that_wait_to_be_accepted_are_counted(tamed: Tamed, ops: Path) -> None:
    """Whether or not a worker answers: the supervisor asks the kernel."""
    tamed.write("counting.py", APPLICATION.replace("unix:counting.sock", "127.0.0.1:0"))
    daemon = tamed.start("--workers", "1", "--ops", "unix:ops.sock", "counting.py")
    queue = f'tamed_listen_queue{{endpoint="127.0.0.1:{daemon.port}"}}'
    assert scrape(ops)[queue] == 0
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) for _ in range(3)]
    assert scrape(ops)[queue] == 3
    assert scrape(ops)[queue.replace("queue", "queue_limit")] >= 100
    os.kill(worker, signal.SIGCONT)
    wait_for("the clients", lambda: scrape(ops)[queue] == 0)
    for client in clients:
        client.close()
    daemon.stop()


def test_endpoint_shows_what_it_is_asked(tamed: Tamed, ops: Path) -> None:
    """Probes list their checks, the status is JSON or text, and other methods and paths have their answer.

    While the supervisor does not turn, each answer is 503 with the reason; afterwards all is as before.
    During the delay of a stop the daemon is not ready for load balancers, and serves as before.
    """
    daemon = start(tamed, "--stop-delay", "1h")
    assert get(ops, "/readyz?verbose") == (
        200,
        "[+]supervisor ok\n[+]started ok\n[+]not-stopping ok\n[+]workers ok\nreadyz check passed\n",
    )
    assert "[+]workers excluded: ok\n" in get(ops, "/readyz?verbose&exclude=workers")[1]
    assert get(ops, "/readyz", "HEAD") == (200, "")
    assert get(ops, "/metrics", "HEAD") == (200, "")
    assert get(ops, "/livez", "POST")[0] == 405
    assert get(ops, "/nothing")[0] == 404
    status = json.loads(get(ops, "/status")[1])
    assert (status["schema_version"], status["name"], status["ready"]) == (1, "counting", 2)
    assert status["workers"][0]["tree"]["children"][0]["name"] == "stream-server"
    text = get(ops, "/status", **{"User-Agent": "curl/8"})[1]
    assert text.startswith(f"counting is running: pid {daemon.pid}, up ")
    assert "# EOF" in get(ops, "/metrics", Accept="application/openmetrics-text")[1]

    daemon.signal(signal.SIGSTOP)
    for target in ("/livez", "/readyz", "/status", "/metrics"):
        assert get_once(ops, target) == (503, "the supervisor has not answered within 1 s\n")
    daemon.signal(signal.SIGCONT)
    wait_for("an answer", lambda: get(ops, "/livez")[0] == 200)

    with tamed.begin("stop", daemon.name) as stopping:
        wait_for("the announcement", lambda: get(ops, "/readyz")[0] == 503)
        be_served(tamed.folder, 5)
        assert json.loads(get(ops, "/status")[1])["state"] == "stopping"
        assert get(ops, "/livez") == (200, "ok")
        assert f"{daemon.name} is stopping" in tamed("reload", daemon.name).err
        daemon.signal(signal.SIGTERM)
        assert stopping.wait(PATIENCE) == 0
    assert tamed.left() == {}


def end_operations_process(tamed: Tamed, number: signal.Signals) -> int:
    """End the process of the endpoint by a signal; return its pid."""
    pids = tamed.processes()
    [pid] = [each for each in pids if b"tamed.ops" in Path(f"/proc/{each}/cmdline").read_bytes()]
    os.kill(pid, number)
    wait_for("its end", lambda: not is_there(pid))
    return pid


def test_endpoint_may_be_a_socket_of_the_parents(tamed: Tamed, ops: Path) -> None:
    """A daemon keeps the one that is named, over an upgrade too; one that is not open fails the start."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(ops))
        number = listening.fileno()
        words = ("start", "--workers", "1", "--ops", f"fd://{number}", "counting.py")
        with tamed.popen(*words, pass_fds=[number]) as starting:
            assert starting.wait(PATIENCE) == 0
        with tamed.begin(*words, "--name", "other") as starting:
            assert starting.wait(PATIENCE) != 0
    daemon = Daemon(tamed, "counting", json.loads(get(ops, "/status")[1])["pid"], [])
    be_served(tamed.folder, 2)
    assert tamed("upgrade", daemon.name).status == 0
    assert scrape(ops)['served_total{kind="a"}'] == 2
    daemon.stop()


def test_endpoint_that_cannot_be_bound_fails_the_start(tamed: Tamed, ops: Path) -> None:
    """An address in use, or a text that is no endpoint, is a line with the reason, and nothing is left.

    Without the option there is no process, no memory for metrics, and prometheus_client is as ever.
    """
    done = tamed("start", "--workers", "1", "--ops", "nowhere", "counting.py")
    assert done.status != 0
    assert "--ops" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = tamed("start", "--workers", "1", "--ops", where, "counting.py")
    assert done.status != 0
    assert where in done.err
    assert tamed.left() == {}
    daemon = tamed.start("--workers", "1", "counting.py")
    be_served(tamed.folder, 1)
    for pid in tamed.processes():
        assert b"tamed.ops" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "tamed-metrics" not in Path(f"/proc/{pid}/maps").read_text()
    daemon.stop()


def test_another_endpoint_takes_a_restart(tamed: Tamed) -> None:
    """A reload warns of it, and an upgrade keeps the old one, whatever stands in the place of the new one."""
    text = '[services.a]\nplugin = "fastpoetry"\nport = 0\n[daemon]\n{more}'
    old, new = (tamed.folder / name for name in ("old.sock", "new.sock"))
    tamed.start(tamed.write("verse.toml", text.format(more=f'ops = "unix:{old}"\n')))
    pid_file = tamed.folder / "second.pid"
    more = f'ops = "unix:{new}"\nops-host = ["verse"]\npid-file = "{pid_file}"\n'
    tamed.write("verse.toml", text.format(more=more))
    names = ("pid-file", "ops", "ops-host")
    warnings = "".join(f"warning: {name} has changed and needs a restart\n" for name in names)
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(new))
        taken.listen()
        for command in ("reload", "upgrade", "upgrade"):
            done = tamed(command)
            assert (done.status, done.out.partition("\n")[2]) == (0, warnings)
            assert get(old, "/livez") == (200, "ok")
    new.unlink()
    assert tamed("restart").status == 0
    assert get(new, "/livez", Host="verse") == (200, "ok")
    assert not old.exists()
    assert pid_file.exists()
    done = tamed("reload")
    assert (done.status, done.out.count("\n")) == (0, 1)
    assert tamed("stop").status == 0
