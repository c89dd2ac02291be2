"""Applications that configure `logging` themselves: Tamed's own records are still in its log."""

import re
import urllib.request

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import Done, Tamed, wait_for

FAILING = """
import asyncio, logging, logging.config
from tamed import Application, Service

{configure}

class Verse(Service):
    async def run(self):
        logging.getLogger("verse").warning("a line of the application's own")
        asyncio.get_running_loop().call_exception_handler({{"message": "nobody awaits this"}})
        raise ValueError("the verse is over")

application = Application("app", Verse("verse"))
"""
WAYS = {
    "dictConfig": "logging.config.dictConfig({'version': 1})",
    "dictConfig of the root's level": "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO'}})",
    "dictConfig of a console": (
        "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO', 'handlers': ['console']},"
        " 'handlers': {'console': {'class': 'logging.StreamHandler'}}})"
    ),
    "dictConfig of a file": (
        "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO', 'handlers': ['file']},"
        " 'handlers': {'file': {'class': 'logging.FileHandler', 'filename': 'own.log'}}})"
    ),
    "fileConfig": (
        "import io; logging.config.fileConfig(io.StringIO('[loggers]\\nkeys=root\\n"
        "[handlers]\\nkeys=console\\n"
        "[formatters]\\nkeys=\\n[logger_root]\\nlevel=INFO\\nhandlers=console\\n"
        "[handler_console]\\nclass=StreamHandler\\nargs=()\\n'))"
    ),
    "basicConfig": "logging.basicConfig(filename='own.log', level='INFO', force=True)",
}


@pytest.mark.parametrize(
    ("options", "way"),
    [
        *(([], way) for way in WAYS),
        pytest.param(["--workers", "2"], "dictConfig of a file", marks=pytest.mark.long),
        (["--preload"], "dictConfig of a file"),
        (["--workers", "1"], "dictConfig of a console"),
    ],
    ids=str,
)
def test_an_application_that_configures_logging_does_not_silence_tamed(
    tamed: Tamed, options: list[str], way: str
) -> None:
    """Errors of services and of the event loop are in the log, each once, however the application logs."""
    tamed.write("app.py", FAILING.format(configure=WAYS[way]))
    log, own = tamed.folder / "the.log", tamed.folder / "own.log"
    log.touch()
    own.touch()
    if options:  # supervised it is tried again and again, which would take a minute
        with tamed.begin("run", *options, "--log", log, "app.py") as process:
            wait_for("its failure", lambda: "service verse failed in run" in log.read_text())
            process.terminate()
            out, err = process.communicate(timeout=PATIENCE)
        done = Done(process.returncode, out, err)
    else:
        done = tamed("run", "--log", log, "app.py")
        assert done.status == 70, done
    told = log.read_text() + (done.err if "console" in WAYS[way] else "")
    for said in ("service verse failed in run", "nobody awaits this"):
        assert said in told, told
    assert "a line of the application's own" in told + own.read_text()


def test_a_level_that_the_application_sets_for_tamed_counts(tamed: Tamed) -> None:
    """An application may configure our loggers by name."""
    configure = "logging.config.dictConfig({'version': 1, 'loggers': {'tamed': {'level': 'CRITICAL'}}})"
    tamed.write("app.py", FAILING.format(configure=configure))
    log = tamed.folder / "the.log"
    tamed("run", "--log", log, "app.py")
    assert re.search(r"WARNING verse: a line of", log.read_text())
    assert "INFO tamed: " not in log.read_text()


def test_connections_are_still_logged_by_services_in_the_box(tamed: Tamed) -> None:
    """The access log of ``tamed web``, which is a logger of ours, is not disabled by the application."""
    tamed.write(
        "app.py",
        "import logging.config\nlogging.config.dictConfig({'version': 1, 'root': {'level': 'INFO'}})\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'verse']\n",
    )
    daemon = tamed.start("web", "--port", "0", "--app", "app:app", "--app-dir", tamed.folder)
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/") as answer:
        assert answer.read() == b"verse"
    daemon.expect_log("GET /")
    daemon.stop()
