"""Commands whose result is one file: finished chunks lie beside it until it is written, at once.

``FILE.parts/`` holds what is finished while the command is at work, or was when it was killed; the
same command goes on from there. FILE is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from asexlatent.cli.engine import Engine
from asexlatent.cli.parts import Parts, discard
from asexlatent.cli.settings import UsageError
from asexlatent.parallel import Job, over_chunks
from asexlatent.whole_file import whole_file

T = TypeVar("T")
Content = dict[str, Any]
"""What is kept of a chunk, as JSON can hold it."""


class FileRun:
    """One run of such a command; a context manager.

    Parameters
    ----------
    output : Path
    run : mapping
        What decides the results, as for `Parts`.
    overwrite : bool
        Replace the file, and what an unfinished run has left.

    Attributes
    ----------
    resumed : bool
        An unfinished run is gone on with.

    Raises
    ------
    UsageError
        On entering: the file is there, or an unfinished run with other settings, or another
        process is at work.
    """

    def __init__(self, output: Path, run: Mapping[str, Any], overwrite: bool = False):
        self.output, self.overwrite = output, overwrite
        self.parts = Parts(output, run, parts_of(output))
        self.resumed = False
        self._total = 0

    def __enter__(self) -> FileRun:
        with ExitStack() as stack:
            try:
                stack.enter_context(self.parts.alone())
                self.resumed = not self.overwrite and self.parts.check()
                if not self.resumed:
                    discard(self.parts.folder)
                    self.parts.begin()
            except OSError as error:
                why = error.strerror or error
                raise UsageError(f"cannot write to {self.output.parent}: {why}") from None
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def work(
        self,
        job: Job[T, Content],
        chunks: Iterable[Sequence[T]],
        engine: Engine,
        seen: Callable[[Content], None],
        few: int = 1,
    ) -> None:
        """Work on the chunks that are not kept yet.

        Parameters
        ----------
        job : Job
        chunks : iterable
            Cut by the input alone.
        engine : Engine
            Where; up to `few` chunks are worked on in this process.
        seen : callable
            Called with the content of each chunk, as they are finished.
        """
        keys: dict[int, str] = {}

        def todo() -> Iterator[tuple[int, Sequence[T]]]:
            for number, chunk in enumerate(chunks):
                self._total = number + 1
                key = self.parts.key(chunk)
                content = self.parts.load(number, key)
                if content is None:
                    keys[number] = key
                    yield number, chunk
                else:
                    seen(content)

        waiting = todo()
        first = list(islice(waiting, few + 1))
        executor, in_flight = engine.start(several=len(first) > few)
        for number, content in over_chunks(
            job, chain(first, waiting), executor, in_flight=in_flight
        ):
            self.parts.save(number, keys.pop(number), content)
            seen(content)

    def contents(self) -> Iterator[Content]:
        """What became of the chunks, in order."""
        for number in range(self._total):
            content = self.parts.load(number, None)
            if content is None:
                raise OSError(f"{self.parts.folder} is damaged: chunk {number} has gone")
            yield content

    def finish(self, texts: Iterable[str]) -> None:
        """Write the file, compressed if its name says so; then the parts have done their duty."""
        write_texts(self.output, texts)
        self.parts.finish()

    def give_up(self) -> None:
        """There is nothing to write, and nothing to go on with."""
        self.parts.finish()


def parts_of(output: Path) -> Path:
    """Folder of the finished chunks of a file that is being made."""
    return output.with_name(output.name + ".parts")


def check_new(output: Path, overwrite: bool, suffixes: Sequence[str]) -> None:
    """Refuse, before any work, a name that no writer is for and a file that is there already.

    Raises
    ------
    UsageError
    """
    if not output.name.lower().endswith(tuple(suffixes)):
        raise UsageError(f"-o {output}: the name must end in {', '.join(suffixes)}")
    going_on = Parts(output, {}, parts_of(output)).unfinished
    if output.exists() and not (overwrite or going_on):
        raise UsageError(f"{output} exists: choose another file (-o) or --overwrite")
    if not output.parent.is_dir():
        raise UsageError(f"-o {output}: there is no folder {output.parent}")


def write_texts(path: Path, texts: Iterable[str]) -> None:
    """Write texts one after the other under a temporary name, sync and rename the file."""
    with whole_file(path) as raw, _compressed(raw, path) as handle:
        for text in texts:
            handle.write(text.encode())


def _compressed(raw: IO[bytes], path: Path) -> AbstractContextManager[IO[bytes]]:
    """Compress without name and time, so that equal contents are equal files."""
    if path.name.lower().endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return contextlib.nullcontext(raw)
