"""Files that are kept: what is served is what is there now, and memory is bounded."""

import asyncio
from pathlib import Path

import pytest

from tamed.builtin._rooted import RootedDirectory
from tamed.builtin._web_files import Files, KeptFiles
from tamed.web.asgi import Message

LARGE = 200 * 1024


class Site:
    """A folder that is served, whose files are kept from their first request on."""

    def __init__(self, folder: Path, *, precompressed: bool = False) -> None:
        self.kept = KeptFiles(settled=0)
        root = RootedDirectory(folder)
        self._files = Files(root, "index.html", precompressed=precompressed, kept=self.kept)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer; a file that the server sends is read."""
        status, body, _ = self.answer(path, **headers)
        return status, body

    def answer(self, path: str, **headers: str) -> tuple[int, bytes, object]:
        """Return the headers of an answer, too."""
        messages: list[Message] = []
        body = b""
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "extensions": {"http.response.pathsend": {}},
        }

        async def receive() -> Message:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            nonlocal body
            messages.append(message)
            body += message.get("body", b"")
            if message["type"] == "http.response.pathsend":
                body += Path(message["path"]).read_bytes()  # noqa: ASYNC240 - nothing else runs

        asyncio.run(self._files(scope, receive, send))
        return messages[0]["status"], body, messages[0]["headers"]


@pytest.mark.parametrize("size", [10, LARGE], ids=["small", "large"])
def test_a_file_is_kept_until_it_changes(tmp_path: Path, size: int) -> None:
    """The second answer is the kept one; a changed, a removed and a new file are seen at once."""
    file, site = tmp_path / "file", Site(tmp_path)
    file.write_bytes(b"a" * size)
    assert site.get("/file") == (200, b"a" * size)
    kept = site.kept.get("/file")
    assert kept is not None
    assert site.answer("/file") == (200, b"a" * size, kept.headers)
    assert site.answer("/file")[2] is kept.headers
    file.write_bytes(b"b" * (size + 1))
    assert site.get("/file") == (200, b"b" * (size + 1))
    file.unlink()
    assert site.get("/file")[0] == 404
    file.write_bytes(b"c" * size)
    assert site.get("/file") == (200, b"c" * size)


def test_a_kept_file_cannot_be_reached_through_a_link_that_leads_out(tmp_path: Path) -> None:
    """Though it is the same file: its folder was moved out of the directory, and a link left in its place."""
    folder, site = tmp_path / "root", Site(tmp_path / "root")
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("text")
    assert site.get("/sub/file") == site.get("/sub/file") == (200, b"text")
    (folder / "sub").rename(tmp_path / "sub")
    (folder / "sub").symlink_to(tmp_path / "sub")
    assert site.get("/sub/file")[0] == 404


def test_ranges_and_validators_of_a_kept_file_are_respected(tmp_path: Path) -> None:
    """They are answered from the file itself."""
    (tmp_path / "file").write_bytes(b"abcdef")
    site = Site(tmp_path)
    assert site.get("/file") == (200, b"abcdef")
    assert site.get("/file", range="bytes=1-2") == (206, b"bc")
    headers = dict(site.answer("/file")[2])  # type: ignore[call-overload]
    assert site.get("/file", if_none_match=headers[b"etag"].decode()) == (304, b"")


def test_a_kept_index_is_the_one_of_its_directory(tmp_path: Path) -> None:
    """A directory without one is not found, also after it had one."""
    site = Site(tmp_path)
    (tmp_path / "index.html").write_text("<p>")
    assert site.get("/") == site.get("/") == (200, b"<p>")
    assert site.kept.get("/index.html") is not None
    (tmp_path / "index.html").unlink()
    assert site.get("/")[0] == 404


def test_the_best_form_is_served_whichever_is_kept(tmp_path: Path) -> None:
    """A compressed form that appears or vanishes beside a kept file is seen at once."""
    site = Site(tmp_path, precompressed=True)
    (tmp_path / "page").write_bytes(b"plain")
    for _ in range(2):
        assert site.get("/page", accept_encoding="br, gzip") == (200, b"plain")
    (tmp_path / "page.gz").write_bytes(b"gzip")
    for _ in range(2):
        assert site.get("/page", accept_encoding="br, gzip") == (200, b"gzip")
        assert site.get("/page") == (200, b"plain")
    (tmp_path / "page.gz").unlink()
    assert site.get("/page", accept_encoding="br, gzip") == (200, b"plain")


def keep(files: KeptFiles, path: Path, content: bytes) -> None:
    """Write a file, and have it kept."""
    path.write_bytes(content)
    files.keep(path.name, path.stat(), content, [])


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path) -> None:
    """It may change again without another time of change."""
    files = KeptFiles(settled=3600)
    keep(files, tmp_path / "new", b"new")
    assert files.get("new") is None


def test_so_many_files_and_bytes_are_kept(tmp_path: Path) -> None:
    """The oldest are forgotten; one that is kept again counts once."""
    files = KeptFiles(most_files=3, most_bytes=100, settled=0)
    for name in "aabcd":
        keep(files, tmp_path / name, b"x")
    assert [name for name in "abcd" if files.get(name)] == ["b", "c", "d"]
    keep(files, tmp_path / "large", b"x" * 99)
    assert [name for name in ("b", "c", "d", "large") if files.get(name)] == ["d", "large"]
    keep(files, tmp_path / "larger", b"x" * 101)
    assert not any(files.get(name) for name in ("d", "large", "larger"))
