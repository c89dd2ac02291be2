"""``tamed export`` and ``tamed schema``: files for other programs that agree with a deployment."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamed._os.text import shown, value_text
from tamed.errors import UsageError
from tamed.export.facts import Facts, command_of_this_installation, name_of, with_lines
from tamed.export.files import MadeFile, differences, write_files
from tamed.plugins.discovery import plugin_folders

if TYPE_CHECKING:
    from tamed.export.install import Place

__all__ = ["check_for", "export", "schema"]

_DIFFERENT = 1  # as diff(1)
_Maker = Callable[[Facts, str, Mapping[str, Any]], Sequence[MadeFile]]


def export(
    kind: str,
    file: str,
    *,
    to: str | None,
    check: bool,
    force: bool,
    path: str | None,
    plugin_dirs: Sequence[str],
    **given: Any,
) -> int:
    """Make the files, and print them, write them, compare them or install them."""
    install, uninstall = given.pop("install"), given.pop("uninstall")
    if install or uninstall:
        _check_installation(kind, "--install" if install else "--uninstall", to=to, check=check, path=path)
    elif (check or force) and to is None:
        raise UsageError(f"{'--check' if check else '--force'} without a folder", remedy="add --to FOLDER")
    if given["kustomize"] and to is None:
        raise UsageError("--kustomize without a folder", remedy="add --to FOLDER")
    if uninstall:
        return _uninstall(
            Path(file), plugin_folders(plugin_dirs, os.environ), is_user=given["user"], force=force
        )
    make, names = _KINDS[kind]
    options = {name: value for name, value in given.items() if value}
    if other := next((name for name in options if name not in names), None):
        raise UsageError(f"{_flag(other)} is no option of `tamed export {kind}`")
    facts = _facts_of(kind, file, path, plugin_dirs)
    source = str(facts.file) if kind == "systemd" else Path(file).name
    words = [word for name, value in options.items() for word in _words(name, value)]
    words += [word for folder in plugin_dirs for word in ("--plugin-dir", folder)]
    if path is not None and kind != "systemd":
        words += ["--path", path]
    if bad := next((word for word in (path or "", file, *words, source) if not word.isprintable()), None):
        why = "it has a character that the files cannot have"
        raise UsageError(f"cannot export {file} with {value_text(bad)}", why)
    files = make(facts, shlex.join(["tamed", "export", kind, *words, source]), options)
    if install:
        return _install(files, facts.name, is_user=given["user"], force=force)
    return _deliver(files, None if to is None else Path(to), check=check, force=force)


def _check_installation(kind: str, flag: str, *, to: str | None, check: bool, path: str | None) -> None:
    if kind != "systemd":
        raise UsageError(f"{flag} is no option of `tamed export {kind}`")
    others = {"--to": to is not None, "--check": check, "--path": path is not None}
    if other := next((each for each, is_given in others.items() if is_given), None):
        raise UsageError(f"{flag} with {other}", "it is for this machine", f"leave out {other}")


def _install(files: Sequence[MadeFile], name: str, *, is_user: bool, force: bool) -> int:
    from tamed.export.install import install

    for line in install(files, _place_of(is_user=is_user), name, force=force):
        print(line)
    return 0


def _uninstall(file: Path, plugin_dirs: tuple[Path, ...], *, is_user: bool, force: bool) -> int:
    from tamed.export.install import uninstall

    print(*uninstall(name_of(file, plugin_dirs), _place_of(is_user=is_user), force=force), sep="\n")
    return 0


def _place_of(*, is_user: bool) -> Place:
    from tamed.export.install import place_of_system, place_of_user

    return place_of_user(os.environ) if is_user else place_of_system()


def _facts_of(kind: str, file: str, path: str | None, plugin_dirs: Sequence[str]) -> Facts:
    from tamed.export.container import FOLDER

    usual = None if kind == "systemd" else FOLDER / Path(file).name
    there = usual if path is None else Path(path)
    with with_lines(Path(file)), redirect_stdout(sys.stderr):  # stdout has the files only
        return Facts.of(Path(file), there, plugin_folders(plugin_dirs, os.environ))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(name: str, value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        yield _flag(name)
        if each is not True:
            yield str(each)


def _deliver(files: Sequence[MadeFile], folder: Path | None, *, check: bool, force: bool) -> int:
    if folder is None:
        print("\n".join(each.text for each in files), end="")
    elif check:
        found = differences(files, folder)
        print(*found, sep="\n", end="\n" if found else "")
        return _DIFFERENT if found else 0
    else:
        for written in write_files(files, folder, force=force):
            print(shown(f"wrote {written}"))
    return 0


def _systemd(facts: Facts, made_by: str, options: Mapping[str, Any]) -> Sequence[MadeFile]:
    from tamed.export.systemd import Manager, read_socket, units_of

    try:
        sockets = dict(read_socket(text) for text in options.get("socket", ()))
    except ValueError as error:
        raise UsageError("--socket", str(error)) from None
    tamed = options.get("command") or command_of_this_installation()
    manager = Manager(tamed, is_user="user" in options, is_split="split" in options)
    return units_of(facts, manager, made_by, sockets)


def _kubernetes(facts: Facts, made_by: str, options: Mapping[str, Any]) -> Sequence[MadeFile]:
    from tamed.export.container import Container, Resources
    from tamed.export.kubernetes import STOP_DELAY, Cluster, manifests_of

    if "max_replicas" in options and "connections" not in options:
        raise UsageError("--max-replicas without an autoscaler", remedy="add --connections NUMBER")
    container = Container.of(facts, options.get("command", "tamed"), STOP_DELAY)
    _warn(container.warnings)
    numbers = ("replicas", "max_replicas", "connections", "service_monitor", "kustomize")
    cluster = Cluster(
        options.get("image", facts.name),
        resources=Resources(options.get("cpu"), options.get("memory")),
        **{name: options[name] for name in numbers if name in options},
    )
    _warn(cluster.warnings(facts))
    return manifests_of(container, cluster, made_by)


def _compose(facts: Facts, made_by: str, options: Mapping[str, Any]) -> Sequence[MadeFile]:
    from tamed.export.compose import project_of
    from tamed.export.container import Container, Resources

    container = Container.of(facts, options.get("command", "tamed"))
    _warn(container.warnings)
    resources = Resources(options.get("cpu"), options.get("memory"))
    return project_of(container, options.get("image", facts.name), resources, made_by)


def _container(facts: Facts, made_by: str, _options: Mapping[str, Any]) -> Sequence[MadeFile]:
    from tamed.export.container import Container, image_of

    container = Container.of(facts)
    _warn(container.warnings)
    return image_of(container, made_by)


def check_for(kind: str, file: str, plugin_dirs: Sequence[str]) -> None:
    """Print what a kind of system ignores of a deployment file.

    Raises as `tamed export` does for a file that cannot be exported.
    """
    from tamed.export.container import Container
    from tamed.export.kubernetes import Cluster

    facts = _facts_of(kind, file, None, plugin_dirs)
    if kind != "systemd":
        _warn(Container.of(facts).warnings)
    if kind == "kubernetes":
        _warn(Cluster(facts.name).warnings(facts))


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(shown(f"warning: {warning}"), file=sys.stderr)


_KINDS: dict[str, tuple[_Maker, tuple[str, ...]]] = {
    "compose": (_compose, ("command", "image", "cpu", "memory")),
    "container": (_container, ()),
    "systemd": (_systemd, ("command", "socket", "split", "user")),
    "kubernetes": (
        _kubernetes,
        (
            "command",
            "image",
            "cpu",
            "memory",
            "replicas",
            "connections",
            "max_replicas",
            "service_monitor",
            "kustomize",
        ),
    ),
}
"""How each kind of files is made, and the options that it has."""


def schema(file: str | None, plugin_dirs: Sequence[str]) -> None:
    """Print the schema of deployment files."""
    from tamed.export.schema import schema_text

    print(schema_text(None if file is None else Path(file), plugin_folders(plugin_dirs, os.environ)), end="")
