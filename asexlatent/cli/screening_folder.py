"""The output folder of a screening: one process at a time, results of one set of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from asexlatent.cli.screen import ScreenSettings
from asexlatent.cli.settings import UsageError
from asexlatent.whole_file import write_whole

if TYPE_CHECKING:
    from asexlatent.screening import ScreenResult

CHUNKS, CONFIG, LOCK = "chunks", "config.json", ".lock"
_NO_MATTER = ("workers", "scheduler", "plot", "top")
"""Settings that may change between the beginning of a run and its continuation."""


class ScreenFolder:
    """An output folder, locked while it is open as a context manager.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    settings : ScreenSettings
    overwrite : bool
        Replace what a run with other settings left.

    Raises
    ------
    UsageError
        It holds something else, or the results of other inputs or settings, another process is
        at work in it, or it cannot be written to.
    """

    def __init__(self, path: Path, settings: ScreenSettings, overwrite: bool = False):
        self.path, self.settings = path, settings
        self.chunks = path / CHUNKS
        config = _config(settings)
        try:
            path.mkdir(parents=True, exist_ok=True)
            known = self._known()
            own = (LOCK, f"{CONFIG}.tmp")  # all that a run leaves that is killed at once
            if known is None and any(p.name not in own for p in path.iterdir()):
                raise UsageError(f"{path} holds no earlier screening: choose another folder (-o)")
            differ = sorted(k for k in config if known is not None and known.get(k) != config[k])
            if differ and not overwrite:
                raise UsageError(
                    f"{path} holds a screening with other {', '.join(differ)}: choose another "
                    "folder (-o) or --overwrite"
                )
            self._lock: IO[str] | None = self._locked()
            self._write(CONFIG, config)
        except OSError as error:
            raise UsageError(f"cannot write to {path}: {error.strerror or error}") from None

    def __enter__(self) -> ScreenFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()  # which gives the lock back, as the end of the process does
            self._lock = None

    def write(self, result: ScreenResult, about: Mapping[str, Any]) -> None:
        """Write all results, and pictures if they are wanted."""
        from asexlatent.screening.database import write_result

        write_result(result, self.path, self.settings.top, about)
        if self.settings.plot:
            from asexlatent.cli.screening_figures import write_figures

            write_figures(result, self.path)

    def _known(self) -> dict[str, Any] | None:
        try:
            known = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def _locked(self) -> IO[str] | None:
        """Hold the lock of the folder; the system lets go of it when the process ends."""
        try:
            import fcntl
        except ImportError:  # no such thing on Windows
            return None
        handle = open(self.path / LOCK, "w", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise UsageError(f"another process is writing to {self.path}") from None
        return handle

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(values, indent=2) + "\n")


def _config(settings: ScreenSettings) -> dict[str, Any]:
    """What decides the results."""
    values = asdict(settings) | {"inputs": list(settings.inputs)}
    return {name: value for name, value in values.items() if name not in _NO_MATTER}
