"""Files that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name; at the end, sync and rename it.

    Raises
    ------
    OSError
        It cannot be written, such as on a full disk. What was there before is untouched, and the
        unfinished file is gone.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # room for what is to be said about it
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text, or leave what was there."""
    with whole_file(path) as handle:
        handle.write(text.encode(errors="surrogatepass"))
