"""Finished pieces of a run on disk, so that it goes on where it was killed.

``DIR/parts/run.json`` says what run it is, ``DIR/parts/000017.json.gz`` holds chunk 17. Each is
written under another name, synced and renamed: it is there whole or not at all. The folder is
removed when the run is complete; as long as it is there, the run is unfinished.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asexlatent.cli.fingerprint import fingerprint
from asexlatent.cli.settings import UsageError
from asexlatent.whole_file import whole_file, write_whole

FOLDER = "parts"
SCREENED = f"{FOLDER}/screening"
"""Folder in an output folder for the finished chunks of a screening."""

_RUN = "run.json"
_FORMAT = 1


class Parts:
    """The parts of a run in an output folder.

    Parameters
    ----------
    folder : Path
        Output folder.
    run : mapping
        What decides the results, as JSON can hold it: settings, versions. A part fits only the
        run that it was made in.
    place : Path, optional
        Where the parts are, if not in the output folder; for commands that write one file.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], place: Path | None = None):
        self.output = folder
        self.folder = folder / FOLDER if place is None else place
        self.run = json.loads(json.dumps(run))
        self._digest = fingerprint(self.run)

    def key(self, *inputs: Any) -> str:
        """Digest of the inputs of a chunk and of the run."""
        return fingerprint(self._digest, *inputs)

    # -- the run ------------------------------------------------------------------------------

    def check(self) -> bool:
        """Whether there is an unfinished run to go on with.

        Raises
        ------
        UsageError
            There is one with other settings; they are named.
        """
        path = self.folder / _RUN
        if not self.unfinished:
            return False
        remedy = "repeat the command as it was, choose another output (-o) or --overwrite"
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            known = saved["run"] if saved["format"] == _FORMAT else None
        except (OSError, ValueError, KeyError, TypeError):
            known = None
        if not isinstance(known, dict):
            raise UsageError(f"{path} is not of this version or damaged: --overwrite starts afresh")
        changed = list(_differences(known, self.run))
        if changed:
            raise UsageError(
                f"{self.output} holds an unfinished run with other settings "
                f"({'; '.join(changed)}): {remedy}"
            )
        return True

    @property
    def unfinished(self) -> bool:
        """Whether there is a run that has not come to its end."""
        return (self.folder / _RUN).exists()

    def begin(self) -> None:
        """Note that this run has begun."""
        self.folder.mkdir(exist_ok=True)
        text = json.dumps({"format": _FORMAT, "run": self.run}, indent=1) + "\n"
        write_whole(self.folder / _RUN, text)

    def finish(self) -> None:
        """The run is complete: the parts have done their duty."""
        (self.folder / _RUN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse to work in this folder while another process does.

        Raises
        ------
        UsageError
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w", encoding="utf-8") as handle:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"another process is at work in {self.output}: wait for it, or choose another "
                    "output (-o)"
                ) from None
            except (ImportError, OSError):  # no such locks here
                pass
            yield

    # -- chunks -------------------------------------------------------------------------------

    def save(self, number: int, key: str, content: Mapping[str, Any]) -> None:
        """Keep the content of a finished chunk."""
        text = json.dumps({"key": key, "content": content})
        with whole_file(self._path(number)) as handle:
            handle.write(gzip.compress(text.encode(), 1, mtime=0))

    def load(self, number: int, key: str | None) -> dict[str, Any] | None:
        """Content of a chunk; None if it is not there, damaged, or of other inputs.

        Without a key, whatever its inputs were.
        """
        try:
            data = json.loads(gzip.decompress(self._path(number).read_bytes()))
            return data["content"] if key in (data["key"], None) else None
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
            return None

    def exists(self, number: int) -> bool:
        """Whether something was kept for this chunk."""
        return self._path(number).exists()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json.gz"


def discard(folder: Path) -> None:
    """Remove the parts of an earlier run from their folder, but not the lock of this one."""
    for path in (*folder.glob("[0-9]*.json.gz*"), *folder.glob(f"{_RUN}*")):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / Path(SCREENED).name, ignore_errors=True)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator:
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif old != new and name.endswith("sha256"):
            yield f"{name.removesuffix(' sha256')} has changed"
        elif old != new:
            yield f"{prefix}{name} was {_shown(old)}, now {_shown(new)}"


def _shown(value: Any) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
