"""The files of a directory as an ASGI application: ranges, validators and index pages, and nothing else."""

import errno
import mimetypes
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from tamed.builtin._rooted import RootedDirectory, open_in_thread

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Files", "accepted_encodings", "has_valid_range"]

_HEADERS: Final = {"x-content-type-options": "nosniff"}
_SMALL: Final = 64 * 1024
"""Bytes of the largest file that is read in the thread that opens it: another call of a thread takes time."""

_RANGE: Final = r"[ \t]*(?:[0-9]{1,19}-[0-9]{0,19}|-[0-9]{1,19})[ \t]*"
_RANGES: Final = re.compile(f"bytes={_RANGE}(?:,{_RANGE})*", re.IGNORECASE)
_MOST_RANGES: Final = 16

_SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Those of compressed files, the best encoding first (RFC 9110, 8.4.1; RFC 8878)."""

_WEIGHT: Final = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
_MOST_CODINGS: Final = 50

_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}

_VALIDATORS: Final = StaticFiles()
"""Starlette's own application for files, which compares validators."""


class Files:
    """Serves the files below a root to GET and HEAD.

    A directory is served as its index file; its name without a slash at the end is redirected to the one with
    it. What may not be read, and what is neither a file nor a directory, is not found, like what does not
    exist.

    With ``precompressed`` a file is served in the form that is beside it (``NAME.br``, ``NAME.zst``,
    ``NAME.gz``), if the client takes that. ``fallback`` is what browsers get for a page that does not exist,
    for applications whose pages are made by scripts.
    """

    def __init__(
        self, root: RootedDirectory, index: str, *, precompressed: bool = False, fallback: str = ""
    ) -> None:
        self._root = root
        self._index = index
        self._precompressed = precompressed
        self._fallback = fallback

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request (ASGI)."""
        if scope["method"] not in {"GET", "HEAD"}:
            refusal = _plain_text(405)
            refusal.headers["allow"] = "GET, HEAD"
            await refusal(scope, receive, send)
            return
        asked = Headers(scope=scope)
        path = scope["path"].removeprefix(scope["root_path"])
        try:
            opened = await open_in_thread(lambda: self._opened(path, asked), _Opened.close)
        except OSError as error:
            await _refusal(scope, error)(scope, receive, send)
            return
        if not has_valid_range(scope):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            response = _response(opened, Headers(scope=scope))
            if self._precompressed:
                response.headers["vary"] = "accept-encoding"
            await response(scope, receive, send)
        finally:
            opened.close()

    def _opened(self, path: str, asked: Headers) -> "_Opened":
        try:
            descriptor, encoding = self._open(path, asked)
        except OSError as error:
            if not self._fallback or error.errno not in _NOT_THERE or not _wants_page(asked):
                raise
            path = self._fallback
            descriptor, encoding = self._open(path, asked)
        found = os.fstat(descriptor)
        content = os.read(descriptor, _SMALL) if found.st_size <= _SMALL else b""
        return _Opened(descriptor, path.rpartition("/")[2] or self._index, found, content, encoding)

    def _open(self, path: str, asked: Headers) -> tuple[int, str]:
        """Open what a path stands for; return its descriptor and its encoding."""
        if not path.endswith("/"):
            return self._open_best(path, asked)
        if not stat.S_ISDIR(self._root.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        try:
            return self._open_best(path + self._index, asked)
        except IsADirectoryError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def _open_best(self, path: str, asked: Headers) -> tuple[int, str]:
        """Open a file, or what is beside it in the form that the client likes best."""
        if self._precompressed:
            for encoding in accepted_encodings(asked.get("accept-encoding", "")):
                with suppress(OSError):
                    return self._root.open(path + _SUFFIXES[encoding]), encoding
        return self._root.open(path), ""


class _Opened(NamedTuple):
    """A file that is open, and its content if it is a small one."""

    descriptor: int
    name: str
    found: os.stat_result
    content: bytes
    encoding: str
    """That of the file, if it is beside the one that was requested."""

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def has_valid_range(scope: "Scope") -> bool:
    """Tell whether a request has a range to respect (RFC 9110, 14.2).

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
    """Return the encodings that a client takes, of those that files may have, the best first.

    That is the order of the weights in its ``Accept-Encoding`` (RFC 9110, 12.5.3), and ours among equals. An
    element that is malformed counts for nothing.
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
    """Tell whether this is a browser that goes to a page, and not a script or an image that is missing."""
    return "text/html" in asked.get("accept", "")


def _response(opened: _Opened, asked: Headers) -> Response:
    kind, encoding = mimetypes.guess_type(opened.name)
    headers = {**_HEADERS, "content-encoding": opened.encoding} if opened.encoding else _HEADERS
    # By its descriptor: the name may be another file's by now.
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
        # From the last component, not from the host or the path: neither can lead to another host then.
        last = quote(scope["path"].rpartition("/")[2])
        query = scope["query_string"].decode("ascii")
        return RedirectResponse(f"./{last}/{'?' * bool(query)}{query}", 308)
    if error.errno in _NOT_THERE or isinstance(error, PermissionError):
        return _plain_text(404)
    raise error


def _plain_text(status: int) -> PlainTextResponse:
    texts = {404: "Not Found", 405: "Method Not Allowed"}
    return PlainTextResponse(f"{texts[status]}\n", status, headers=_HEADERS)
