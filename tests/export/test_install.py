"""Installing units and removing them: what systemctl is asked to do, and what is never overwritten."""

import shutil
from pathlib import Path

import pytest

from tamed.errors import CannotCreate, MissingInput, PermissionRefused, SystemRefused, Unavailable
from tamed.export.files import MadeFile
from tamed.export.install import Place, install, place_of_system, place_of_user, systemctl, uninstall
from tests.cli.conftest import Tamed

SERVICE = MadeFile("verse.service", "[Service]\nExecStart=/bin/true\n", "a test")
SOCKET = MadeFile("poems.socket", "[Socket]\nListenStream=80\nService=verse.service\n", "a test")
CHANGED = SERVICE._replace(content="[Service]\nExecStart=/bin/false\n")


class Manager:
    """Does what systemctl is asked for, as far as it shows. ``broken`` does not start."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.states: dict[str, str] = {}
        self.broken = ""

    def __call__(self, *words: str) -> str:
        match words:
            case ("show", "--property", "ActiveState", "--value", name):
                return self.states.get(name, "inactive")
            case ("show", "--property", "StatusText", "--value", _):
                return "no poems"
            case ("start" | "restart", name):
                if name == self.broken:
                    raise SystemRefused("cannot start", "Job failed")
                self.states[name] = "active"
            case ("reset-failed", name) if name not in self.states:
                raise SystemRefused("cannot reset", f"Unit {name} not loaded")
            case _:
                pass
        self.asked.append(" ".join(words))
        return ""


@pytest.fixture
def manager() -> Manager:
    """A manager without units."""
    return Manager()


def test_units_are_enabled_and_started_sockets_first(tmp_path: Path, manager: Manager) -> None:
    """Again, nothing is written, and what runs goes on; a changed unit is restarted."""
    lines = install([SERVICE, SOCKET], Place(tmp_path, manager), "verse")
    assert lines == [
        f"wrote {tmp_path}/verse.service",
        f"wrote {tmp_path}/poems.socket",
        "started poems.socket",
        "started verse.service",
    ]
    assert manager.asked == [
        "daemon-reload",
        "daemon-reload",
        "enable --quiet poems.socket",
        "start poems.socket",
        "enable --quiet verse.service",
        "start verse.service",
    ]
    assert install([SERVICE, SOCKET], Place(tmp_path, manager), "verse") == [
        "started poems.socket",
        "started verse.service",
    ]
    assert install([CHANGED], Place(tmp_path, manager), "verse")[-1] == "restarted verse.service"
    assert manager.asked[-2:] == ["reset-failed verse.service", "restart verse.service"]


@pytest.mark.parametrize("state", ["activating", "deactivating", "reloading"])
def test_a_changed_unit_is_restarted_also_while_it_starts(
    tmp_path: Path, manager: Manager, state: str
) -> None:
    """It would go on with what it was started with."""
    install([SERVICE], Place(tmp_path, manager), "verse")
    manager.states["verse.service"] = state
    assert install([CHANGED], Place(tmp_path, manager), "verse")[-1] == "restarted verse.service"


def test_a_unit_that_does_not_start_says_why(tmp_path: Path, manager: Manager) -> None:
    """The reason is the one that the service sent to the manager."""
    manager.broken = "verse.service"
    with pytest.raises(Unavailable, match=r"verse.service: no poems; see journalctl --unit verse.service"):
        install([SERVICE], Place(tmp_path, manager), "verse")
    manager.broken = "poems.socket"
    with pytest.raises(Unavailable, match=r"poems.socket: Job failed"):
        install([SERVICE, SOCKET], Place(tmp_path, manager), "verse")


def test_nothing_is_written_without_systemd(tmp_path: Path) -> None:
    """The manager is asked first."""

    def refuse(*words: str) -> str:
        raise SystemRefused("cannot run systemctl", "System has not been booted with systemd")

    with pytest.raises(SystemRefused, match="not been booted"):
        install([SERVICE], Place(tmp_path, refuse), "verse")
    assert list(tmp_path.iterdir()) == []


def test_a_unit_that_was_edited_by_hand_stays(tmp_path: Path, manager: Manager) -> None:
    """Neither is it overwritten, nor removed, unless that is meant."""
    unit = tmp_path / "verse.service"
    unit.write_text(SERVICE.text + "Nice=5\n")
    with pytest.raises(CannotCreate, match="edited by hand"):
        install([SERVICE], Place(tmp_path, manager), "verse")
    with pytest.raises(CannotCreate, match="edited by hand"):
        uninstall("verse", Place(tmp_path, manager))
    assert unit.read_text().endswith("Nice=5\n")
    assert uninstall("verse", Place(tmp_path, manager), force=True) == [f"removed {unit}"]


def test_all_units_of_a_deployment_are_removed(tmp_path: Path, manager: Manager) -> None:
    """Its sockets are known by the service that they start; those of others stay."""
    other = SOCKET._replace(name="other.socket", content="[Socket]\nService=other.service\n")
    install([SERVICE, SOCKET, other], Place(tmp_path, manager), "verse")
    manager.asked.clear()
    assert uninstall("verse", Place(tmp_path, manager)) == [
        f"removed {tmp_path}/verse.service",
        f"removed {tmp_path}/poems.socket",
    ]
    assert manager.asked == ["disable --quiet --now verse.service poems.socket", "daemon-reload"]
    assert [path.name for path in tmp_path.iterdir()] == ["other.socket"]
    with pytest.raises(MissingInput, match=r"there is no .*/verse.service"):
        uninstall("verse", Place(tmp_path, manager))


def test_another_split_is_not_installed_beside_the_first(tmp_path: Path, manager: Manager) -> None:
    """Two daemons would serve the same; a target and its services are removed together."""
    place = Place(tmp_path, manager)
    target = MadeFile("verse.target", "[Install]\nWantedBy=multi-user.target\n", "a test")
    part = MadeFile("verse-a.service", "[Unit]\nPartOf=verse.target\n\n[Service]\n", "a test")
    install([SERVICE, SOCKET], place, "verse")
    with pytest.raises(CannotCreate, match=r"verse.service is from an earlier installation.* --uninstall"):
        install([target, part], place, "verse")
    uninstall("verse", place)
    assert install([target, part], place, "verse")[-2:] == ["started verse.target", "started verse-a.service"]
    with pytest.raises(CannotCreate, match=r"verse.target is from an earlier installation"):
        install([SERVICE, SOCKET], place, "verse")
    assert len(uninstall("verse", place)) == 2
    assert list(tmp_path.iterdir()) == []


def test_links_of_others_are_no_units_of_ours(tmp_path: Path, manager: Manager) -> None:
    """As those of aliases, which may lead nowhere; a masked unit is not unmasked."""
    (tmp_path / "other.service").symlink_to("nowhere.service")
    (tmp_path / "other.socket").symlink_to("nowhere.socket")
    place = Place(tmp_path, manager)
    install([SERVICE, SOCKET], place, "verse")
    assert len(uninstall("verse", place)) == 2
    (tmp_path / "verse.service").symlink_to("/dev/null")
    with pytest.raises(CannotCreate, match="edited by hand"):
        install([SERVICE], place, "verse")


def test_each_manager_has_its_folder() -> None:
    """That of the user is beside the user's other configuration."""
    assert place_of_system().folder == Path("/etc/systemd/system")
    assert place_of_user({"XDG_CONFIG_HOME": "/srv/etc"}).folder == Path("/srv/etc/systemd/user")
    place = place_of_user({"HOME": "/srv/john"})
    assert (place.folder, place.log) == (Path("/srv/john/.config/systemd/user"), "journalctl --user")
    for run in (place_of_user({}).run, place_of_system().run):
        with pytest.raises((SystemRefused, MissingInput, PermissionRefused), match="cannot run systemctl "):
            run("no-such-verb")


def test_systemctl_tells_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error has its words."""
    monkeypatch.setenv("SYSTEMD_COLORS", "0")
    with pytest.raises((SystemRefused, MissingInput), match="cannot run systemctl no-such-verb: "):
        systemctl("no-such-verb")


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl is not installed")
def test_user_without_a_session_gets_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no manager of a user who has not logged in, as after su(1)."""
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemRefused, match=r"Failed to connect to bus.*; log in as this user, or let root"):
        systemctl("--user", "daemon-reload")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("systemd", "--install", "--to", "out"), "--install with --to: it is for this machine"),
        (("systemd", "--uninstall", "--check"), "--uninstall with --check"),
        (("kubernetes", "--install"), "--install is no option of `tamed export kubernetes`"),
        (("systemd", "--socket", "poems"), "expected NAME=ADDRESS, such as poems=:80, got 'poems'"),
        (("systemd", "--socket", "poems=fd://3"), "expected HOST:PORT or unix:PATH after poems="),
        (("systemd", "--socket", "verses=:80"), "no service listens on systemd://verses (known: poems)"),
    ],
)
def test_wrong_options_say_what_is_wrong(
    tamed: Tamed, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    """Nothing is installed, and nothing is written."""
    file = tmp_path / "verse.toml"
    file.write_text('[services.ecstasy]\nplugin = "fastpoetry"\nlisten = "systemd://poems"\n')
    done = tamed("export", *options, file)
    assert (done.status, done.out) == (64, ""), done
    assert why in done.err
