"""Completion: the scripts for bash, zsh and fish, and the command that they call.

At each completion the script runs ``tamed __complete SHELL …``. The output has a line for each possible
word, with its meaning after a tab; a last line ``:file`` or ``:folder`` asks the shell to complete paths too.
No plugin is imported before its name is complete. An error offers nothing: it is reported when the command
runs.
"""

from __future__ import annotations

import os

from tamed.cli.commands import COMMANDS, TAMED
from tamed.cli.grammar import Argument, Command, CommandLine, Option
from tamed.errors import TamedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

__all__ = ["completion", "offer"]


def completion(shell: str) -> None:
    """Print the script of a shell."""
    print(_SCRIPTS[shell], end="")


def offer(shell: str, words: Sequence[str]) -> int:
    """Print the possible completions of the last word.

    zsh passes the words; bash and fish pass the line, including quotes. bash also passes the part of the last
    word that it replaces, because it ends words at ``=`` and ``:`` as well.
    """
    skip = 0
    if shell != "zsh":
        line, *part = words
        words = _split(line)[1:]
        if part and words and words[-1].endswith(part[0]):
            skip = len(words[-1]) - len(part[0])
    for word in _offers(TAMED, words):
        print(word if word.startswith(":") else word[skip:])
    return 0


def _split(line: str) -> list[str]:
    """Split a line as a shell does; it may end within quotes, after a backslash, or in an empty word."""
    if not any(each in line for each in "'\"\\"):
        *words, last = f"{line}|".split()  # the bar is part of the last word
        return [*words, last[:-1]]
    import shlex  # lazy import: few lines have quotes

    for end in ("|", "'|", '"|', "\\|"):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words[:-1], words[-1][:-1]]
    return []


def _offers(command: Command, words: Sequence[str]) -> Iterator[str]:
    """Yield the possible last words after a command, then ``:file`` or ``:folder`` if paths are possible."""
    *before, current = words or [""]
    line = CommandLine(command, "")
    try:
        for word in before:
            line.take(word)
        if line.words or line.is_in_rest:
            yield from _in_rest(line, current)
        elif line.waiting is not None:
            yield from _values(line, line.waiting, current)
        elif line.takes_options and current.startswith("--") and "=" in current:
            flag, _, value = current.partition("=")
            option = next((each for each in line.options if flag in each.flags), None)
            if option is not None and option.metavar:
                for word in _values(line, option, value):
                    yield word if word.startswith(":") else f"{flag}={word}"
        elif line.takes_options and current.startswith("-"):
            yield from _flags(line, current)
        elif line.argument is not None:
            yield from _values(line, line.argument, current)
    except TamedError:  # a flag, a target or a folder that does not exist, or is not complete
        return


def _flags(line: CommandLine, current: str) -> Iterator[str]:
    """Yield the matching long flags."""
    for option in line.options:
        for flag in (*option.flags, *option.off_flags):
            if flag.startswith("--") and flag.startswith(current):
                yield f"{flag}\t{option.help}"


def _values(line: CommandLine, what: Option | Argument, current: str) -> Iterator[str]:
    if what.complete == "command":
        offers = [f"{each.name}\t{each.summary}" for each in COMMANDS]
    elif what.complete in {"instance", "running"}:
        offers = _instances(line, running=what.complete == "running")
    elif what.complete == "target":
        offers = _targets(line)
    else:
        offers = list(what.choices)
    yield from (each for each in offers if each.startswith(current))
    if what.complete in {"file", "target"}:
        yield ":file"
    if what.complete == "folder":
        yield ":folder"


def _instances(line: CommandLine, *, running: bool) -> list[str]:
    from pathlib import Path

    from tamed.unix.rundir import RunDirectory, default_run_directory

    place = line.given.get("rundir") or os.environ.get("TAMED_RUNDIR")
    directory = RunDirectory(Path(place) if place else default_run_directory(os.environ))
    if running:
        return [each.name for each in directory.running()]
    from tamed.supervisor.plan_file import stopped_names

    return sorted({*stopped_names(directory), *(each.name for each in directory.instances())})


def _targets(line: CommandLine) -> list[str]:
    """Return the names of plugins; none if a plugin folder cannot be read."""
    from tamed.cli.options import folders
    from tamed.plugins.discovery import names

    try:
        return sorted(names(folders(line.given["plugin_dirs"])))
    except TamedError:
        return []


def _in_rest(line: CommandLine, current: str) -> Iterator[str]:
    """Yield the possible words after the name of a command, or after a target."""
    words = [*line.words, current]
    if "command" in line.given:
        for command in COMMANDS:
            if command.name == line.given["command"]:
                yield from _offers(command, words)
    elif "target" in line.given:
        from tamed.cli.options import service_command
        from tamed.cli.targets import job_of

        target, daemon, log, plugin_dirs = (
            line.given[key] for key in ("target", "daemon", "log", "plugin_dirs")
        )
        yield from _offers(service_command(job_of(target, daemon, log, plugin_dirs)), words)
    else:
        yield ":file"


_SCRIPTS: Final = {
    "bash": r"""_tamed() {
    local line kind= IFS=$'\n'
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) kind=$line ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$1" __complete bash "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    if [[ $kind == :folder ]]; then
        compopt -o dirnames
    elif [[ $kind == :file && ${#COMPREPLY[@]} == 0 ]]; then
        compopt -o default
    elif [[ $kind == :file ]]; then
        compopt -o filenames
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$2")
    fi
}
complete -F _tamed tamed
""",
    "zsh": r"""#compdef tamed

_tamed() {
    local line kind=
    local -a offers
    for line in "${(@f)$($words[1] __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            :*) kind=$line ;;
            *$'\t'*) offers+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
            ?*) offers+=("${line//:/\\:}") ;;
        esac
    done
    (( $#offers )) && _describe -V tamed offers
    if [[ -n $kind ]]; then
        compset -P '--*='
        if [[ $kind == :folder ]]; then _files -/; else _files; fi
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _tamed "$@"
else
    compdef _tamed tamed
fi
""",
    "fish": r"""function __tamed_complete
    set -l command (commandline -opc)[1]
    set -l current (commandline -ct | string replace -r '^["\']' '' | string unescape)
    set -l prefix (string match -r -- '^--[^=]*=' "$current")
    set -l path (string replace -r -- '^--[^=]*=' '' "$current")
    for line in ($command __complete fish (commandline -cp) 2>/dev/null)
        switch $line
            case ':file'
                for each in (__fish_complete_path "$path" '')
                    echo -- "$prefix$each"
                end
            case ':folder'
                for each in (__fish_complete_directories "$path" '')
                    echo -- "$prefix$each"
                end
            case '*'
                echo -- $line
        end
    end
end
complete -c tamed -f -a '(__tamed_complete)'
""",
}
