"""The files of a directory as an ASGI application: ranges, validators, index pages, a cache, nothing else."""

import errno
import mimetypes
import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from tamed._os.text import listed
from tamed.builtin._rooted import RootedDirectory, open_in_thread
from tamed.errors import from_os_error

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = [
    "Files",
    "KeptFile",
    "KeptFiles",
    "accepted_encodings",
    "has_valid_range",
    "identity_of",
    "require_fallback",
]

_HEADERS: Final = {"x-content-type-options": "nosniff"}
_SMALL: Final = 64 * 1024
"""Bytes of the largest file that is read in the thread that opens it: another call of a thread takes time."""

_RANGE: Final = r"[ \t]*(?:[0-9]{1,19}-[0-9]{0,19}|-[0-9]{1,19})[ \t]*"
_RANGES: Final = re.compile(f"bytes={_RANGE}(?:,{_RANGE})*", re.IGNORECASE)
_MOST_RANGES: Final = 16

_CONDITIONS: Final = {
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"range",
}

_SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""The suffixes of compressed files, the best encoding first (RFC 9110, 8.4.1; RFC 8878)."""

_WEIGHT: Final = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
_MOST_CODINGS: Final = 50

_SETTLED: Final = 2.0
"""Seconds after which a further change gives a file another modification time."""

_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}

_VALIDATORS: Final = StaticFiles()
"""Starlette's own application for files, which compares validators."""


class KeptFile(NamedTuple):
    """A cache entry."""

    identity: tuple[int, ...]
    """The result of `identity_of`."""
    content: bytes
    """All of it, if ``has_content``."""
    has_content: bool
    headers: list[tuple[bytes, bytes]]
    """The headers of the answer to an unconditional request."""


class KeptFiles:
    """A bounded cache of files by path; the oldest entries are dropped first.

    It saves a thread to open them again, and the making of an answer, which would take several times as long
    as the rest of the work for a small file. Each request still checks, in the event loop, whether the file
    has changed: the kernel has the name of a recently served file in memory. A file is not cached if it was
    changed less than ``settled`` seconds ago: it may change again within the same tick of the file system's
    clock.
    """

    def __init__(
        self, most_files: int = 1024, most_bytes: int = 4 * 1024 * 1024, settled: float = _SETTLED
    ) -> None:
        self._settled = settled
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._files: dict[str, KeptFile] = {}
        self._bytes = 0

    def get(self, path: str) -> KeptFile | None:
        """Return the entry for a path; the file may have changed since."""
        return self._files.get(path)

    def keep(
        self, path: str, found: os.stat_result, content: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Cache a file, unless it was changed just now. ``content`` is empty unless the file is small."""
        self._forget(path)
        if time.time() - found.st_ctime < self._settled:
            return
        self._files[path] = KeptFile(identity_of(found), content, len(content) == found.st_size, headers)
        self._bytes += len(content)
        while len(self._files) > self._most_files or self._bytes > self._most_bytes:
            self._forget(next(iter(self._files)))

    def _forget(self, path: str) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            self._bytes -= len(file.content)


def identity_of(found: os.stat_result) -> tuple[int, ...]:
    """Return values that change with the file at a path, its content, and its permissions."""
    return found.st_ctime_ns, found.st_ino, found.st_size, found.st_dev


class Files:
    """Serves the files below a root to GET and HEAD.

    A directory is served as its index file; its name without the final slash is redirected to the one with
    it. What cannot be read, or is neither a file nor a directory, is 404 Not Found.

    With ``precompressed`` a file is served in the form beside it (``NAME.br``, ``NAME.zst``, ``NAME.gz``), if
    the client accepts that. ``fallback`` is the file that browsers get for a missing page, for single-page
    applications.
    """

    def __init__(
        self,
        root: RootedDirectory,
        index: str,
        *,
        precompressed: bool = False,
        fallback: str = "",
        kept: KeptFiles | None = None,
    ) -> None:
        self._root = root
        self._index = index
        self._precompressed = precompressed
        self._fallback = fallback
        self._kept = kept or KeptFiles()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request (ASGI)."""
        if scope["method"] not in {"GET", "HEAD"}:
            refusal = _plain_text(405)
            refusal.headers["allow"] = "GET, HEAD"
            await refusal(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        is_plain = _CONDITIONS.isdisjoint([name for name, _ in scope["headers"]])
        if is_plain and await self._has_sent_kept(path, scope, send):
            return
        try:
            opened = await open_in_thread(lambda: self._opened(path, scope), _Opened.close)
        except OSError as error:
            await _refusal(scope, error)(scope, receive, send)
            return
        if not has_valid_range(scope):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            response = _response(opened, Headers(scope=scope))
            if self._precompressed:
                response.headers["vary"] = "accept-encoding"
            if is_plain:
                self._kept.keep(opened.path, opened.found, opened.content, response.raw_headers)
            await response(scope, receive, send)
        finally:
            opened.close()

    async def _has_sent_kept(self, path: str, scope: "Scope", send: "Send") -> bool:
        """Answer with a cached file, if it has not changed; return whether it was sent."""
        path, file = self._unchanged(path, scope)
        if file is None:
            return False
        start = {"type": "http.response.start", "status": 200, "headers": file.headers}
        if file.has_content:
            await send(start)
            await send({"type": "http.response.body", "body": file.content})
            return True
        if "http.response.pathsend" not in scope.get("extensions", ()):
            return False
        try:
            descriptor, found = self._root.open_with_status(path)
        except OSError:
            return False
        try:
            is_same = file.identity == identity_of(found)
            if is_same:
                await send(start)
                await send({"type": "http.response.pathsend", "path": f"/dev/fd/{descriptor}"})
            return is_same
        finally:
            os.close(descriptor)

    def _unchanged(self, path: str, scope: "Scope") -> tuple[str, KeptFile | None]:
        """Return the path of the file for a request, and its cache entry; None without a fresh one.

        Only an entry with the content is checked here; others are checked after the file is opened.
        """
        if path.endswith("/"):
            path += self._index
        for form, _ in self._forms(path, scope):
            file = self._kept.get(form)
            if file is None and form == path:
                break
            if file is not None and not file.has_content:
                return form, file  # checked after it is opened
            try:
                found = self._root.stat(form)
            except OSError:
                continue
            return form, file if file is not None and file.identity == identity_of(found) else None
        return path, None

    def _opened(self, path: str, scope: "Scope") -> "_Opened":
        try:
            descriptor, form, encoding = self._open(path, scope)
        except OSError as error:
            if not self._fallback or error.errno not in _NOT_THERE or not _wants_page(Headers(scope=scope)):
                raise
            path = self._fallback
            descriptor, form, encoding = self._open(path, scope)
        found = os.fstat(descriptor)
        content = os.read(descriptor, _SMALL) if found.st_size <= _SMALL else b""
        name = path.rpartition("/")[2] or self._index
        return _Opened(descriptor, form, name, found, content, encoding)

    def _open(self, path: str, scope: "Scope") -> tuple[int, str, str]:
        """Open the file for a path; return its descriptor, its path and its encoding."""
        if not path.endswith("/"):
            return self._open_best(path, scope)
        if not stat.S_ISDIR(self._root.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        try:
            return self._open_best(path + self._index, scope)
        except IsADirectoryError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def _open_best(self, path: str, scope: "Scope") -> tuple[int, str, str]:
        """Open a file, or the compressed form beside it that the client prefers."""
        *better, plain = self._forms(path, scope)
        for form, encoding in better:
            with suppress(OSError):
                return self._root.open(form), form, encoding
        return self._root.open(path), *plain

    def _forms(self, path: str, scope: "Scope") -> list[tuple[str, str]]:
        """Return the forms of a file that the client accepts, each with its encoding, the best first."""
        plain = (path, "")
        if not self._precompressed:
            return [plain]
        encodings = accepted_encodings(Headers(scope=scope).get("accept-encoding", ""))
        return [*((path + _SUFFIXES[encoding], encoding) for encoding in encodings), plain]


class _Opened(NamedTuple):
    """An open file, and the content of a small one."""

    descriptor: int
    path: str
    name: str
    found: os.stat_result
    content: bytes
    encoding: str
    """The encoding, if this is a compressed form of the requested file ``name``."""

    def close(self) -> None:
        os.close(self.descriptor)


def require_fallback(file: str, index: str, roots: Sequence[RootedDirectory]) -> None:
    """Raise a TamedError if a fallback is in none of the directories that are served."""
    failures: list[OSError] = []
    for root in roots:
        try:
            return os.close(root.open(file + index if file.endswith("/") else file))
        except OSError as error:
            failures.append(error)
    remedy = f"name a file in {listed([str(root.folder) for root in roots])}"
    raise from_os_error(f"cannot serve the fallback {file}", failures[0], remedy) from failures[0]


def has_valid_range(scope: "Scope") -> bool:
    """Return whether a request has a valid range (RFC 9110, 14.2).

    It has none, and the answer is the whole file, if the method is not GET, the unit is not bytes, or the
    ranges are malformed or too many.
    """
    asked = [value.decode("latin-1") for name, value in scope["headers"] if name == b"range"]
    if scope["method"] != "GET" or len(asked) != 1 or not _RANGES.fullmatch(asked[0]):
        return False
    several = [part.strip().partition("-") for part in asked[0].partition("=")[2].split(",")]
    in_order = (not first or not last or int(first) <= int(last) for first, _, last in several)
    return len(several) <= _MOST_RANGES and all(in_order)


def accepted_encodings(header: str) -> list[str]:
    """Return the supported encodings that a client accepts, the best first.

    The order is that of the weights in its ``Accept-Encoding`` (RFC 9110, 12.5.3), and ours among equals. A
    malformed element is ignored.
    """
    weights: dict[str, float] = {}
    for element in header.split(",")[:_MOST_CODINGS]:
        name, semicolon, parameter = element.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        if weight or not semicolon:
            weights[name.strip().lower()] = float(weight[1]) if weight else 1.0
    others = weights.get("*", 0.0)
    wanted = {encoding: weights.get(encoding, others) for encoding in _SUFFIXES}
    return sorted((each for each in wanted if wanted[each]), key=lambda each: -wanted[each])


def _wants_page(asked: Headers) -> bool:
    """Return whether a browser navigates to a page, as opposed to a missing script or image."""
    return "text/html" in asked.get("accept", "")


def _response(opened: _Opened, asked: Headers) -> Response:
    kind, encoding = mimetypes.guess_type(opened.name)
    headers = {**_HEADERS, "content-encoding": opened.encoding} if opened.encoding else _HEADERS
    # By descriptor: the name may already belong to another file.
    response = FileResponse(
        f"/dev/fd/{opened.descriptor}",
        headers=headers,
        media_type="application/octet-stream" if kind is None or encoding else kind,
        stat_result=opened.found,
    )
    if _VALIDATORS.is_not_modified(response.headers, asked):
        return NotModifiedResponse(response.headers)
    if "range" not in asked and len(opened.content) == opened.found.st_size:
        return Response(opened.content, headers=response.headers)
    return response


def _refusal(scope: "Scope", error: OSError) -> Response:
    if isinstance(error, IsADirectoryError):
        # Relative to the last component, so that neither host nor path can redirect to another host.
        last = quote(scope["path"].rpartition("/")[2])
        query = scope["query_string"].decode("ascii")
        return RedirectResponse(f"./{last}/{'?' * bool(query)}{query}", 308)
    if error.errno in _NOT_THERE or isinstance(error, PermissionError):
        return _plain_text(404)
    raise error


def _plain_text(status: int) -> PlainTextResponse:
    texts = {404: "Not Found", 405: "Method Not Allowed"}
    return PlainTextResponse(f"{texts[status]}\n", status, headers=_HEADERS)
