"""The commands: each declared once, as data; the modules that do their work are loaded when they are used."""

from collections.abc import Sequence
from typing import Final

from tamed._os.variables import import_variable
from tamed.cli.grammar import Argument, Command, Option, one_of, parse, whole_number
from tamed.errors import UsageError

__all__ = ["COMMANDS", "TAMED", "run_command"]

_SHELLS: Final = ("bash", "zsh", "fish")
_MOST_WORKERS: Final = 999_999_999_999_999_999  # a smaller bound is checked, and explained, where it is known


def _duration(word: str) -> float:
    from tamed.plugins.values import Duration

    return Duration.parse(word)


_RUNDIR: Final = Option(
    "rundir",
    ("--rundir",),
    "The folder in which the instances live.",
    "FOLDER",
    complete="folder",
    facts=("env: TAMED_RUNDIR",),
)
_PLUGIN_DIR: Final = Option(
    "plugin_dirs",
    ("--plugin-dir",),
    "A folder with plugins, a file NAME.py for each.",
    "FOLDER",
    repeatable=True,
    complete="folder",
    facts=("repeatable", "env: TAMED_PLUGIN_PATH"),
)


def _of_target(name: str, summary: str, about: str, examples: tuple[tuple[str, str], ...] = ()) -> Command:
    """Declare a command with the options of the daemon, a TARGET, and the target's own options behind it."""
    return Command(
        name,
        summary,
        f"tamed.cli.targets:{name}",
        about,
        examples,
        arguments=(Argument("target", "TARGET", complete="target"),),
        options=(_PLUGIN_DIR,),
        more_options="tamed.cli.options:daemon_options",
        rest="[SERVICE OPTIONS]",
        hint="the options of the service stand behind TARGET",
    )


def _of_instance(
    name: str,
    summary: str,
    about: str,
    *options: Option,
    arguments: tuple[Argument, ...] = (),
    complete: str = "running",
) -> Command:
    """Declare a command for an instance, which need not be named if it is the only one."""
    return Command(
        name,
        summary,
        f"tamed.cli.instances:{name}",
        f"{about}\n\nNAME may be left out if only one instance runs.",
        arguments=(*arguments, Argument("name", "NAME", required=False, complete=complete)),
        options=(*options, _RUNDIR),
    )


COMMANDS: Final = (
    _of_target(
        "check",
        "Load and validate a target and show its services; run nothing.",
        """
        It binds nothing either. It takes the same options as run, so that exactly what would be run is
        checked.
        """,
    ),
    Command(
        "completion",
        "Print what makes a shell complete the command.",
        "tamed.cli.completion:completion",
        "Commands, options and their values, targets and the names of instances are completed.",
        (
            ('eval "$(tamed completion bash)"', "in ~/.bashrc"),
            ('eval "$(tamed completion zsh)"', "in ~/.zshrc, after compinit"),
            ("tamed completion fish > ~/.config/fish/completions/tamed.fish", ""),
        ),
        (Argument("shell", "SHELL", read=one_of(*_SHELLS), choices=_SHELLS),),
    ),
    _of_instance(
        "logs",
        "Show the log of an instance.",
        "Prints its last lines. The log of an instance that has ended is found by its name.",
        Option(
            "lines",
            ("-n", "--lines"),
            "How many lines.",
            "NUMBER",
            default=20,
            read=whole_number(0, 1_000_000_000),
            facts=("default: 20",),
        ),
        Option("follow", ("-f", "--follow"), "Go on with what is logged from now on, also in a new file."),
        complete="instance",
    ),
    Command(
        "new",
        "Write a small package with a service, a plugin and tests.",
        "tamed.cli.new:new",
        """
        It is written into the folder NAME. NAME is also what the package, and the plugin in it, are called:
        letters, digits and dashes.
        """,
        (("tamed new poemhour && cd poemhour && make test", ""),),
        (Argument("name", "NAME"),),
    ),
    Command(
        "password",
        "Print a line of a password file.",
        "tamed.cli.password:password",
        """
        It is for the user NAME. The password is asked for on the terminal, twice, or read from the first line
        of the standard input.
        """,
        (("tamed password john >> users", "add a user"),),
        (Argument("name", "NAME"),),
    ),
    Command(
        "plugins",
        "List what can be run by name.",
        "tamed.cli.plugins:plugins",
        """
        These are the plugins of the installed packages and of plugin folders. One that cannot be imported is
        listed with its reason. Where Twisted is installed, its plugins that can be run are in a table of
        their own.
        """,
        options=(_PLUGIN_DIR,),
    ),
    _of_instance(
        "reload",
        "Let new workers with new code take over; lose no connection.",
        """
        The new workers read the files and the code anew. The old ones serve the connections that they have
        accepted to the end. If one of the new workers does not become ready, everything stays as it was, and
        this says why. While another reload, an upgrade or scaling is under way, it waits for its turn.
        """,
    ),
    _of_instance(
        "reopen",
        "Let an instance open its log file anew.",
        """
        That is for when logrotate or somebody else has moved it away. If it fails, the log goes on in the old
        file, and this says why.
        """,
    ),
    _of_instance(
        "restart",
        "Stop an instance and start it again, as it was started.",
        "Waits until it is gone. The environment is that of this command.",
    ),
    _of_target(
        "run",
        "Run a target in the foreground; Ctrl-C stops it.",
        "The options of the daemon stand before TARGET, those of the service behind it: see TARGET --help.",
        (
            ("tamed run fastpoetry --port 10007 --poem ecstasy.txt", ""),
            ("tamed run --log-level debug fastpoetry.py", ""),
            ("tamed run verse.toml", ""),
            ("tamed run package.module:application", ""),
        ),
    ),
    _of_instance(
        "scale",
        "Change how many workers an instance has.",
        """
        Returns when COUNT workers are ready. Workers that are too many serve the connections they have to the
        end. The number holds until the instance is restarted, or reloaded with another number in its files,
        also if some of them do not become ready. While a reload or an upgrade is under way, it waits for its
        turn; a later number takes the place of an earlier one.
        """,
        Option("yes", ("--yes",), "Do it, also if it is more than 32 workers for each CPU."),
        arguments=(Argument("count", "COUNT", read=whole_number(1, _MOST_WORKERS)),),
    ),
    _of_target(
        "start",
        "Run a target as a daemon; return when it is ready, or say why it is not.",
        """
        The daemon is an instance of the run directory: status, logs, stop and restart find it there by its
        name.
        """,
        (
            ("tamed start fastpoetry --port 10007", ""),
            ("tamed start --workers auto --user nobody verse.toml", ""),
        ),
    ),
    _of_instance(
        "status",
        "Show how an instance stands.",
        """
        Its workers, its services and where it listens. The exit status is 0 only if all of its workers are
        ready.
        """,
        Option("as_json", ("--json",), "Print everything as JSON."),
        complete="instance",
    ),
    _of_instance(
        "stop",
        "Stop an instance and wait until it has drained.",
        "Its open connections are served to the end.",
        Option(
            "timeout",
            ("--timeout",),
            "How long to wait; without it, until it is gone.",
            "DURATION",
            read=_duration,
        ),
        Option("force", ("--force",), "End it at once if it is not gone in time (10s without --timeout)."),
    ),
    Command(
        "twistd",
        "Take twistd's command line, and run what it says.",
        "tamed.cli.twistd:twistd",
        "It runs as a daemon unless the line says --nodaemon.",
        rest="[OPTIONS OF TWISTD]",
        has_help=False,  # the line has an option of its own for that
    ),
    _of_instance(
        "upgrade",
        "Replace the supervisor's own program in place, and reload.",
        """
        The supervisor becomes the program that is installed now: a new Tamed, or a new Python in the same
        place. The process stays the same, with its pid, its sockets and its workers, and no connection is
        lost. If the new program does not start, everything stays as it was, and this says why. While a
        reload, another upgrade or scaling is under way, it waits for its turn.
        """,
    ),
)
"""All of them, by name."""

TAMED: Final = Command(
    "tamed",
    "Turn a Python network program into a well-behaved daemon.",
    about="""
    TARGET is the name of a plugin, an application file (FILE.py), PACKAGE.MODULE:VARIABLE, or a deployment
    file (FILE.toml). Options of the daemon stand before it, and the service's own behind it.
    """,
    examples=(
        ("tamed run fastpoetry", "serve a poem on port 10000"),
        ("tamed run fastpoetry --help", "the options of a plugin"),
        ("tamed run verse.toml", "what a deployment file says"),
        ("tamed run --log-level debug app.py", "an application file, told in detail"),
        ("tamed check verse.toml", "see what would be run"),
        ("tamed plugins", "what can be run by name"),
    ),
    arguments=(Argument("command", "COMMAND", required=False, complete="command"),),
    options=(Option("version", ("--version",), "Show the version and exit."),),
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
    return import_variable(command.handler)(**given) or 0


def _show_help(command: Command, path: str, commands: Sequence[Command] = ()) -> int:
    from tamed.cli.help import help_page

    print(help_page(command, path, commands))
    return 0
