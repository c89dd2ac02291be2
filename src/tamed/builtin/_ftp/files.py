"""The files of FTP, all below the root; every access to the disk is made in a thread."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import IO, Any, Final, TypeVar

import aioftp

from tamed.builtin._rooted import RootedDirectory, open_in_thread

__all__ = ["Files"]

PathT = TypeVar("PathT", bound=PurePosixPath)

_FLAGS: Final = {
    "rb": os.O_RDONLY,
    "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "r+b": os.O_RDWR | os.O_CREAT,
}


class _Listed(PurePosixPath):
    """A path in a listing, with its status, which avoids a second stat(2)."""

    found: os.stat_result


class Files(aioftp.AbstractPathIO[Any]):
    """The files below a root, as aioftp's commands use them.

    The paths are those that the client sees: ``/`` is the root. Everything runs in a thread and raises the
    OSError of the system.
    """

    def __init__(
        self, root: RootedDirectory, *, timeout: float | None = None, connection: Any, state: Any
    ) -> None:
        super().__init__(timeout=timeout, connection=connection)
        self._root = root

    async def exists(self, path: PurePosixPath) -> bool:
        return await self._mode(path) is not None

    async def is_dir(self, path: PurePosixPath) -> bool:
        return stat.S_ISDIR(await self._mode(path) or 0)

    async def is_file(self, path: PurePosixPath) -> bool:
        return stat.S_ISREG(await self._mode(path) or 0)

    async def stat(self, path: PurePosixPath) -> os.stat_result:
        """Return the status of the file at a path, through a link at its end."""
        if isinstance(path, _Listed):
            return path.found
        return await asyncio.to_thread(self._root.stat, str(path))

    async def list(self, path: PurePosixPath) -> AsyncIterator[PurePosixPath]:
        """Yield the entries of a directory by name; for a file, the file itself."""
        if await self.is_file(path):
            yield path
            return
        for name, found in await asyncio.to_thread(self._root.entries, str(path)):
            listed = _Listed(path / name)
            listed.found = found
            yield listed

    async def mkdir(self, path: PurePosixPath, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Create a directory; its parents must exist."""
        await asyncio.to_thread(self._make_directory, str(path))

    async def rmdir(self, path: PurePosixPath) -> None:
        await asyncio.to_thread(self._remove_directory, str(path))

    async def unlink(self, path: PurePosixPath) -> None:
        """Remove a file, or a link to one."""
        await asyncio.to_thread(self._remove, str(path))

    async def rename(self, source: PathT, destination: PathT) -> PathT:
        """Rename a file or a directory; an existing file of the new name is replaced."""
        await asyncio.to_thread(self._rename, str(source), str(destination))
        return destination

    async def _open(self, path: PurePosixPath, mode: str = "rb") -> IO[bytes]:  # type: ignore[override]
        return await open_in_thread(lambda: self._open_file(str(path), mode), lambda file: file.close())

    async def seek(self, file: IO[bytes], offset: int, whence: int = os.SEEK_SET) -> int:
        return await asyncio.to_thread(file.seek, offset, whence)

    async def read(self, file: IO[bytes], block_size: int) -> bytes:
        return await asyncio.to_thread(file.read, block_size)

    async def write(self, file: IO[bytes], data: bytes) -> int:
        return await asyncio.to_thread(file.write, data)

    async def close(self, file: IO[bytes]) -> None:
        """Close an open file, even if cancelled. Raises OSError for data that could not be written."""
        # A future of the executor, not a task: those are cancelled when the event loop ends.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, file.close))

    async def _mode(self, path: PurePosixPath) -> int | None:
        try:
            return (await self.stat(path)).st_mode
        except OSError:
            return None

    def _open_file(self, path: str, mode: str) -> IO[bytes]:
        return os.fdopen(self._root.open(path, _FLAGS[mode]), mode)

    def _make_directory(self, path: str) -> None:
        with self._root.resolve(path) as entry:
            os.mkdir(entry.name, dir_fd=entry.directory)

    def _remove_directory(self, path: str) -> None:
        with self._root.resolve(path) as entry:
            os.rmdir(entry.name, dir_fd=entry.directory)

    def _remove(self, path: str) -> None:
        with self._root.resolve(path, through_link=False) as entry:
            os.unlink(entry.name, dir_fd=entry.directory)

    def _rename(self, source: str, destination: str) -> None:
        with (
            self._root.resolve(source, through_link=False) as old,
            self._root.resolve(destination, through_link=False) as new,
        ):
            os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)
