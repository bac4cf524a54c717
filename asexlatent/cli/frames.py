"""Readers of structure files, one frame at a time, each frame on its own.

A reader yields ``(number, Atoms)`` or ``(number, ReadError)``, where the number counts the frames
of the file from 0 (rows of a database: their id). A broken frame does not stop it wherever the
format tells where the next one begins. `LostRest` says that this was not so.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ase import Atoms

Index = int | slice | str
"""What follows the @ of an input: a frame, a slice, or a database query."""


class ReadError(ValueError):
    """A frame that cannot be read; the message is complete for a user."""


class LostRest(ReadError):
    """A broken frame after which nothing more of the file can be read."""


class EmptyError(ReadError):
    """A file without frames, or without those asked for."""


T = TypeVar("T")
Frame = tuple[int, "Atoms | ReadError"]


def reader_for(path: Path) -> Callable[[Path, Index], Iterator[Frame]]:
    """Return the reader for the format of a file; ReadError when ASE does not know it."""
    from ase.io.formats import UnknownFileTypeError, filetype

    if path.suffix == ".db":
        return read_database
    try:
        kind = filetype(str(path))
    except UnknownFileTypeError:
        raise ReadError("not a structure file that ASE knows") from None
    except Exception as error:  # e.g. a compressed file that is damaged
        raise ReadError(reason(error)) from None
    known = {"traj": read_trajectory, "extxyz": read_xyz, "xyz": read_xyz}
    known |= {"db": read_database, "json": read_database}
    return known.get(kind, read_any)


def read_trajectory(path: Path, index: Index) -> Iterator[Frame]:
    """Frames of an ASE trajectory, by random access."""
    from ase.io.trajectory import TrajectoryReader

    try:
        trajectory = TrajectoryReader(str(path))
    except Exception as error:
        raise ReadError(reason(error)) from None
    with trajectory:
        for number in chosen(len(trajectory), index):
            yield number, _attempt(trajectory.__getitem__, number)


def read_database(path: Path, index: Index) -> Iterator[Frame]:
    """Rows of an ASE database; key-value pairs and data go to ``info``, numbers are row ids."""
    import ase.db

    def frame(row_id: int) -> Atoms:
        row = database.get(id=row_id)
        atoms = row.toatoms()
        atoms.info.update(row.key_value_pairs)
        if row.data:
            atoms.info["data"] = dict(row.data)
        return atoms

    try:
        # Rows are fetched one by one: a select without columns would hold all of them.
        database = ase.db.connect(str(path), serial=True)
        query = index if isinstance(index, str) else None
        rows = database.select(query, columns=["id"], include_data=False)
        ids = [row.id for row in rows]
    except Exception as error:
        raise ReadError(reason(error)) from None
    places = range(len(ids)) if isinstance(index, str) else chosen(len(ids), index)
    if not ids:
        raise EmptyError("no row" if query is None else f"no row for the query {query!r}")
    for place in places:
        yield ids[place], _attempt(frame, ids[place])


def read_xyz(path: Path, index: Index) -> Iterator[Frame]:
    """Frames of an (extended) XYZ file, in one pass."""
    from ase.io.extxyz import read_xyz as parse

    def frame(lines: list[str]) -> Atoms:
        # The declared number of lines is there; what ASE refuses in them ends with this frame.
        return next(iter(parse(io.StringIO("".join(lines)), 0)))

    for number, block in select(index, lambda: xyz_blocks(path)):
        yield number, block if isinstance(block, ReadError) else _attempt(frame, block)


def xyz_blocks(path: Path) -> Iterator[list[str] | ReadError]:
    """Lines of each frame; a file that cannot be followed any more ends with an error."""
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(path), "r") as handle:
            yield from _blocks(handle)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        yield LostRest(reason(error))


def _blocks(handle: io.TextIOBase) -> Iterator[list[str] | ReadError]:
    header, line_number = handle.readline(), 1
    while header:
        if not header.strip():
            header = handle.readline()
            line_number += 1
            continue
        try:
            n_atoms = int(header)
            if n_atoms < 0:
                raise ValueError
        except ValueError:
            shown = header.strip()[:40]
            yield LostRest(f"line {line_number} should be a number of atoms but is {shown!r}")
            return
        lines = [header, *itertools.islice(handle, n_atoms + 1)]
        if len(lines) < n_atoms + 2:
            yield LostRest("the file ends in the middle of the frame")
            return
        header, line_number = handle.readline(), line_number + n_atoms + 2
        while header.lstrip().startswith("VEC"):
            lines.append(header)
            header, line_number = handle.readline(), line_number + 1
        yield lines


def read_any(path: Path, index: Index) -> Iterator[Frame]:
    """Frames of any other format, through `ase.io.iread`."""
    from ase.io import iread

    if isinstance(index, str):
        raise ReadError(f"{index!r} is no index: write a number or start:stop:step")
    frames = iread(str(path), index, do_not_split_by_at_sign=True)
    number, step = _first(index)
    last = None
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            break
        except Exception as error:  # readers raise whatever they like
            yield number, LostRest(reason(error))
            return
        last = number
        yield number, _ordered(atoms)
        number += step
    if last is None:
        raise EmptyError("no structure in it" if index == slice(None) else "no such frame")


def _first(index: int | slice) -> tuple[int, int]:
    """Number of the first frame and the step, as far as they can be known in advance."""
    if isinstance(index, int):
        return max(index, 0), 1
    start, step = index.start or 0, index.step or 1
    return (start, step) if start >= 0 and step > 0 else (0, 1)


def _ordered(atoms: Atoms) -> Atoms | ReadError:
    """Refuse the partial occupancies that ASE's CIF reader leaves in ``info``."""
    for occupancy in atoms.info.get("occupancy", {}).values():
        if len(occupancy) > 1 or abs(sum(occupancy.values()) - 1) > 1e-3:
            return ReadError(
                "partial occupancies: only ordered structures can be taken, make one of it"
            )
    return atoms


def chosen(count: int, index: Index) -> range:
    """Places that an index picks out of `count`, in the order of the index."""
    if isinstance(index, str):
        raise ReadError(f"{index!r} is no index: write a number or start:stop:step")
    if isinstance(index, int):
        if not -count <= index < count:
            raise EmptyError(f"no frame {index}: there are {count}")
        return range(index % count, index % count + 1)
    places = range(count)[index]
    if not places:
        raise EmptyError("it is empty" if not count else f"no such frame: there are {count}")
    return places


def select(index: Index, items: Callable[[], Iterator[T]]) -> Iterator[tuple[int, T]]:
    """Pick from what can only be read from its beginning; `items` starts a new pass.

    It is counted first (a pass of its own) only if the index is relative to the end.
    """
    if isinstance(index, slice) and (index.step or 1) < 0:
        raise ReadError("a file of this format cannot be read backwards: use a positive step")
    limits = (index.start, index.stop) if isinstance(index, slice) else (index,)
    if all(limit is None or (isinstance(limit, int) and limit >= 0) for limit in limits):
        wanted = range(_ENDLESS)[index if isinstance(index, slice) else slice(index, index + 1)]
    else:
        wanted = chosen(sum(1 for _ in items()), index)
    number = -1
    for number, item in enumerate(items()):
        if number in wanted:
            yield number, item
        elif number >= wanted.stop:
            return
    if wanted.start > number:
        chosen(number + 1, index)  # says what is missing


_ENDLESS = 2**62


def reason(error: BaseException) -> str:
    """One line that says what went wrong."""
    words = " ".join(str(error).split())
    return words if len(words) > 12 else f"{type(error).__name__}: {words}".rstrip(": ")


def _attempt(read: Callable[[Any], Atoms], key: Any) -> Atoms | ReadError:
    try:
        return read(key)
    except Exception as error:  # a broken frame raises whatever it likes
        return ReadError(reason(error))
