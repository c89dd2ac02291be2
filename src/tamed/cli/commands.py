"""The commands, each declared once, as data. A command's module is loaded only when the command runs."""

from __future__ import annotations

from tamed.cli._instance_commands import INSTANCE_COMMANDS
from tamed.cli.grammar import Argument, Command, Option, parse, path_word, whole_number
from tamed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

__all__ = ["COMMANDS", "TAMED", "run_command"]

_SHELLS: Final = ("bash", "zsh", "fish")
_EXPORTS: Final = ("compose", "container", "kubernetes", "systemd")
_IN_CLUSTER: Final = "Options for kubernetes, and the first three for compose"
_ON_SYSTEMD: Final = "Options for systemd"
_pods: Final = whole_number(1, 1_000_000)
_PLUGIN_DIR: Final = Option(
    "--plugin-dir",
    "Folder with plugins, one file NAME.py each.",
    "FOLDER",
    name="plugin_dirs",
    env="TAMED_PLUGIN_PATH",
    repeatable=True,
)


def _of_target(
    name: str,
    summary: str,
    about: str,
    examples: tuple[tuple[str, str], ...] = (),
    options: tuple[Option, ...] = (),
) -> Command:
    """Declare a command with the options of the daemon, a TARGET, and the target's own options after it."""
    return Command(
        name,
        summary,
        f"tamed.cli.targets:{name}",
        about,
        examples,
        arguments=(Argument("target", "TARGET", complete="target"),),
        options=(*options, _PLUGIN_DIR),
        more_options="tamed.cli.options:daemon_options",
        rest="[SERVICE OPTIONS]",
        hint="options of the service go after TARGET",
    )


def _of_cluster(
    flag: str, help_text: str, metavar: str = "", read: Callable[[str], object] | None = None
) -> Option:
    return Option(flag, help_text, metavar, read=read, section=_IN_CLUSTER)


_OTHERS: Final = (
    Command(
        "cert",
        "Make a certificate for development, and a local authority that signs it.",
        "tamed.cli.cert:cert",
        """
        NAME is a host name, *.DOMAIN, an address, or an e-mail address for the certificate of a client; by
        default localhost, 127.0.0.1 and ::1. The authority is made once in each folder, so its clients need
        to trust it only once. Needs the extra cert.
        """,
        (
            ("pip install 'tamed[cert]'", ""),
            ("tamed cert", "localhost.pem and localhost-key.pem"),
            ("tamed cert --to tls shop.test '*.shop.test'", ""),
            ("tamed cert alice@example.com", "for a client"),
        ),
        arguments=(Argument("names", "NAME", required=False, repeatable=True),),
        options=(
            Option("--to", "Write the files into this folder.", "FOLDER", default="."),
            Option(
                "--days",
                "Days for which the certificate is valid.",
                "NUMBER",
                default=397,
                read=whole_number(1, 36_500),
            ),
            Option("--force", "Replace a certificate and its key that are there."),
        ),
    ),
    _of_target(
        "check",
        "Load and validate a target and show its services, without running it.",
        """
        Binds no address. Takes the same options as run, and so checks exactly what run would run.
        """,
        options=(
            Option(
                "--for",
                "Also check whether a deployment file can be exported as this, and warn of what is ignored.",
                "KIND",
                name="system",
                choices=_EXPORTS,
            ),
        ),
    ),
    Command(
        "completion",
        "Print the completion script of a shell.",
        "tamed.cli.completion:completion",
        "Completes commands, options and their values, targets, and names of instances.",
        (
            ('eval "$(tamed completion bash)"', "in ~/.bashrc"),
            ('eval "$(tamed completion zsh)"', "in ~/.zshrc, after compinit"),
            ("tamed completion fish > ~/.config/fish/completions/tamed.fish", ""),
        ),
        arguments=(Argument("shell", "SHELL", choices=_SHELLS),),
    ),
    Command(
        "export",
        "Print or write the files with which another program runs a deployment.",
        "tamed.cli.export:export",
        """
        KIND systemd makes a unit, kubernetes manifests, compose a project of Docker Compose or Podman, and
        container a Containerfile, with times, limits and permissions that fit the deployment. FILE is loaded
        and validated as by check. Variables that set options do not count: the same FILE always makes the
        same files. Settings that the other system lacks cause a warning.
        """,
        (
            ("tamed export systemd verse.toml", "print the unit"),
            ("tamed export systemd verse.toml --to units", "write it"),
            ("tamed export systemd verse.toml --to units --check", "compare it"),
            ("tamed export systemd verse.toml --install", "install it, as root"),
            ("tamed export kubernetes --image verse:1 verse.toml | kubectl apply -f -", ""),
        ),
        arguments=(
            Argument("kind", "KIND", choices=_EXPORTS),
            Argument("file", "FILE", read=path_word, complete="file"),
        ),
        options=(
            Option("--to", "Write the files into this folder.", "FOLDER"),
            Option("--check", "Compare the files in the folder; write nothing."),
            Option("--force", "Overwrite files that were edited by hand."),
            Option(
                "--command",
                "Path of the command tamed where the files are used; by default the path here, or tamed.",
                "PATH",
            ),
            Option(
                "--path",
                "Path of FILE where the files are used; by default the path here, or in /app.",
                "PATH",
            ),
            _PLUGIN_DIR,
            Option(
                "--socket",
                "Let systemd listen on this address, for the services on systemd://NAME.",
                "NAME=ADDRESS",
                repeatable=True,
                section=_ON_SYSTEMD,
            ),
            Option(
                "--split", "Make a service unit for each service, and a target for all.", section=_ON_SYSTEMD
            ),
            Option("--user", "Make units for systemctl --user, which need no root.", section=_ON_SYSTEMD),
            Option(
                "--install",
                "Write the units into /etc/systemd/system, or the user's; start them now and at each boot.",
                section=_ON_SYSTEMD,
            ),
            Option("--uninstall", "Stop the units, and remove them from there.", section=_ON_SYSTEMD),
            _of_cluster("--image", "Image to run; by default the name of the deployment.", "IMAGE"),
            _of_cluster("--cpu", "CPUs of each container: 2, or 500m.", "QUANTITY"),
            _of_cluster("--memory", "Memory of each container: 256Mi.", "QUANTITY"),
            _of_cluster("--replicas", "Number of pods; by default 2.", "NUMBER", _pods),
            _of_cluster(
                "--connections", "Open connections for each pod that an autoscaler aims at.", "NUMBER", _pods
            ),
            _of_cluster(
                "--max-replicas", "Most pods that the autoscaler makes; by default 10.", "NUMBER", _pods
            ),
            _of_cluster("--service-monitor", "Let the Prometheus operator find the metrics."),
            _of_cluster("--kustomize", "Make a base for the overlays of kustomize."),
        ),
    ),
    Command(
        "new",
        "Write a small package with a service, a plugin, tests and a deployment.",
        "tamed.cli.new:new",
        """
        Creates it in the folder NAME. NAME is also the name of the package and of its plugin: letters,
        digits and dashes.
        """,
        (("tamed new poemhour && cd poemhour && make test", ""),),
        arguments=(Argument("name", "NAME"),),
    ),
    Command(
        "password",
        "Print a line of a password file.",
        "tamed.cli.password:password",
        """
        The line is for the user NAME. The command asks for the password twice on a terminal; otherwise it
        reads the first line of standard input.
        """,
        (("tamed password john >> users", "add a user"),),
        arguments=(Argument("name", "NAME"),),
    ),
    Command(
        "plugins",
        "List the plugins.",
        "tamed.cli.targets:plugins",
        """
        Lists the plugins of the installed packages and of the plugin folders. A plugin that cannot be
        imported is listed with the reason. If Twisted is installed, a second table lists its plugins that
        Tamed can run.
        """,
        options=(_PLUGIN_DIR,),
    ),
    _of_target(
        "run",
        "Run a target in the foreground; Ctrl-C stops it.",
        "Options of the daemon go before TARGET, options of the service after it: see TARGET --help.",
        (
            ("tamed run fastpoetry --port 10007 --poem ecstasy.txt", ""),
            ("tamed run --log-level debug fastpoetry.py", ""),
            ("tamed run verse.toml", ""),
            ("tamed run package.module:application", ""),
        ),
    ),
    Command(
        "schema",
        "Print the JSON Schema of deployment files.",
        "tamed.cli.export:schema",
        """
        Editors complete and check a deployment file with it. With FILE, it has the options of the plugins
        that FILE names.
        """,
        (("tamed schema verse.toml > verse.schema.json", "for an editor"),),
        arguments=(Argument("file", "FILE", required=False, read=path_word, complete="file"),),
        options=(_PLUGIN_DIR,),
    ),
    _of_target(
        "start",
        "Run a target as a daemon; return when it is ready, or report why it is not.",
        """
        The daemon is an instance in the run directory. The commands status, logs, stop and restart find it
        there by its name.
        """,
        (
            ("tamed start fastpoetry --port 10007", ""),
            ("tamed start --workers auto --user nobody verse.toml", ""),
        ),
    ),
    Command(
        "twistd",
        "Run a command line of twistd.",
        "tamed.cli.targets:twistd",
        "Runs as a daemon unless the line has --nodaemon.",
        rest="[OPTIONS OF TWISTD]",
        has_help=False,  # the line has an option of its own for that
    ),
)

COMMANDS: Final = tuple(sorted((*INSTANCE_COMMANDS, *_OTHERS), key=lambda command: command.name))
"""All of them, by name."""

TAMED: Final = Command(
    "tamed",
    "Turn a Python network program into a well-behaved daemon.",
    about="""
    TARGET is the name of a plugin, an application file (FILE.py), PACKAGE.MODULE:VARIABLE, or a deployment
    file (FILE.toml). Options of the daemon go before TARGET, options of the service after it.
    """,
    examples=(
        ("tamed run fastpoetry", "serve a poem on port 10000"),
        ("tamed run fastpoetry --help", "the options of a plugin"),
        ("tamed run verse.toml", "the services of a deployment file"),
        ("tamed run --log-level debug app.py", "an application file, with a detailed log"),
        ("tamed check verse.toml", "validate without running"),
        ("tamed plugins", "the plugins that there are"),
    ),
    arguments=(Argument("command", "COMMAND", required=False, complete="command"),),
    options=(Option("--version", "Show the version and exit."),),
    rest="…",
)
"""The command itself."""


def run_command(arguments: Sequence[str]) -> int:
    """Run a command line, and return the status of a command that has one."""
    given = parse(TAMED, arguments, "tamed")
    if given is not None and given["version"]:
        from tamed._version import __version__

        print("tamed", __version__)
        return 0
    if given is None or given["command"] is None:
        return _show_help(TAMED, "tamed", COMMANDS)
    name = given["command"]
    command = next((each for each in COMMANDS if each.name == name), None)
    if command is None:
        from tamed._os.text import did_you_mean

        remedy = did_you_mean(name, [each.name for each in COMMANDS], "`tamed --help` lists them")
        raise UsageError(f"unknown command {name!r}", remedy=remedy)
    path = f"tamed {name}"
    given = parse(command, given["words"], path)
    if given is None:
        return _show_help(command, path)
    from tamed._os.variables import import_variable  # lazy import: completion does not need it

    return import_variable(command.handler)(**given) or 0


def _show_help(command: Command, path: str, commands: Sequence[Command] = ()) -> int:
    from tamed.cli.help import help_page

    print(help_page(command, path, commands))
    return 0
