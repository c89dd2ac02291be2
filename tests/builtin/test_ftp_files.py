"""The files behind FTP's commands."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tamed.builtin._ftp.files import Files
from tamed.builtin._rooted import RootedDirectory

pytestmark = pytest.mark.anyio


async def test_a_file_is_closed_even_if_the_caller_is_cancelled_before_a_thread_is_free(
    tmp_path: Path,
) -> None:
    """A transfer that is broken off on a busy server leaves no descriptor behind."""
    the_only_thread = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(the_only_thread)
    free = threading.Event()
    the_only_thread.submit(free.wait, 30)
    files = Files(RootedDirectory(tmp_path), connection=None, state=None)
    with (tmp_path / "poem").open("wb") as file:
        closing = asyncio.create_task(files.close(file))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        free.set()
        await asyncio.to_thread(lambda: None)
        assert file.closed
