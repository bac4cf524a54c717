"""The inputs of a run as one stream of candidates, in order, nothing left out.

A broken structure is an entry that holds its error; a path that holds no structure at all (it
does not exist, it is empty) is a problem, reported once and no entry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.frames import (
    EmptyError,
    Index,
    LostRest,
    ReadError,
    chosen,
    reader_for,
    reason,
    select,
)

if TYPE_CHECKING:
    from ase import Atoms

    from asexlatent.cli.settings import Settings
    from asexlatent.optimize.result import Candidate
    from asexlatent.symmetry import CrystalError, TableRow

SPECIES_COLUMNS = ("species", "asx_species")
"""Columns of a table that say the elements of its sites: one symbol, or one for each used site."""


@dataclass(frozen=True)
class Entry:
    """One candidate and where it came from.

    Attributes
    ----------
    index : place among all candidates of the run, from 0.
    source : file and place in it, such as ``file.traj@12``.
    candidate : Atoms, SymmetricCrystal, or the CrystalError in its place.
    extra : further columns of the table that it came from, as text.
    notes : what the user should know about it, one line each.
    """

    index: int
    source: str
    candidate: Candidate
    extra: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Found = tuple[str, "Candidate", dict[str, str]]
Report = Callable[[str], None]


def split_input(name: str) -> tuple[Path, Index]:
    """Path and index of an input such as ``file.traj@:100``; all frames without an index."""
    from ase.io.formats import string2index

    base, mark, index = name.rpartition("@")
    if not mark or os.path.exists(name) or "@" not in os.path.basename(name):
        return Path(name), slice(None)
    if not index:
        return Path(base), slice(None)
    try:
        return Path(base), string2index(index)
    except ValueError:
        return Path(base), index


def read_inputs(settings: Settings, species: Iterable[str], report: Report) -> Iterator[Entry]:
    """All candidates of a run, streamed.

    Parameters
    ----------
    settings
        Inputs and how to read them.
    species
        Elements of the target: what the sites of a table without a species column are made of.
    report
        Called with one line for each input that holds no candidate.
    """
    index = 0
    for name in settings.inputs:
        try:
            for source, candidate, extra in _candidates(name, settings, sorted(set(species))):
                notes = _notes(candidate, settings.symprec)
                yield Entry(index, source, candidate, extra, notes)
                index += 1
        except EmptyError as error:
            report(f"{name}: {error}")
        except ReadError as error:
            report(f"{name}: {error}")
        except OSError as error:
            report(f"{name}: {error.strerror or error}")


def count_inputs(settings: Settings) -> int | None:
    """Number of candidates, where it is quick to know; None otherwise."""
    total = 0
    for name in settings.inputs:
        path, index = split_input(name)
        try:
            size = _size(path)
            if size is None or isinstance(index, str):
                return None
            total += len(chosen(size, index))
        except (ReadError, OSError):
            continue
        except Exception:  # the readers will say what is wrong
            return None
    return total


def table_extras(settings: Settings) -> list[str]:
    """Names of the further columns of all tables among the inputs, in order of appearance."""
    from asexlatent.symmetry.rows import SLOT_COLUMN, TABLE_COLUMNS
    from asexlatent.symmetry.table import is_table

    names: dict[str, None] = {}
    for name in settings.inputs:
        path, _ = split_input(name)
        if is_table(path) and path.is_file():
            for column in _header(path):
                names[column] = None
    own = {name for name in names if name in TABLE_COLUMNS or SLOT_COLUMN.fullmatch(name)}
    return [name for name in names if name not in own]


def _candidates(name: str, settings: Settings, species: list[str]) -> Iterator[Found]:
    from asexlatent.symmetry.table import is_table

    path, index = split_input(name)
    if path.is_dir():
        yield from _folder(path, index, settings)
    elif not path.exists():
        raise ReadError("no such file or folder")
    elif not path.stat().st_size:
        raise EmptyError("the file is empty")
    elif is_table(path):
        yield from _table(path, index, settings, species)
    else:
        yield from _file(path, index, settings)


def _file(path: Path, index: Index, settings: Settings) -> Iterator[Found]:
    """Frames of a structure file; a file that cannot be read at all is one broken candidate."""
    from asexlatent.symmetry import CrystalError

    several = False
    try:
        for number, frame in reader_for(path)(path, index):
            place = f"{path}@{number}"
            if isinstance(frame, LostRest) and not several:
                yield str(path), _second_try(path, frame, settings), {}
            elif isinstance(frame, LostRest):
                yield place, CrystalError(f"nothing from here on can be read: {frame}"), {}
            else:
                error = isinstance(frame, ReadError)
                yield place, _unreadable(frame) if error else frame, {}
            several = True
    except EmptyError:
        raise
    except ReadError as error:
        yield str(path), _unreadable(error), {}


def _unreadable(error: Exception | str) -> CrystalError:
    from asexlatent.symmetry import CrystalError

    return CrystalError(f"cannot be read: {error} (repair it or leave it out)")


def _second_try(path: Path, error: ReadError, settings: Settings) -> Candidate:
    """Pymatgen's reading of a CIF that ASE cannot read."""
    from asexlatent.symmetry import SymmetricCrystal

    if path.suffix.lower() == ".cif":
        try:
            return SymmetricCrystal.from_cif(
                path, symprec=settings.symprec, space_group=settings.space_group
            )
        except Exception as second:  # two libraries' worth of errors
            return _unreadable(reason(second))
    return _unreadable(error)


def _folder(path: Path, index: Index, settings: Settings) -> Iterator[Found]:
    """CIF files of a folder, by name; the index counts files."""

    files = _cifs(path)
    if not files:
        raise EmptyError("no CIF file in this folder")
    for place in chosen(len(files), index):
        try:
            if not files[place].stat().st_size:
                raise EmptyError("the file is empty")
            yield from _file(files[place], slice(None), settings)
        except (ReadError, OSError) as error:
            yield str(files[place]), _unreadable(error), {}


def _cifs(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() == ".cif" and p.is_file())


def _table(path: Path, index: Index, settings: Settings, species: list[str]) -> Iterator[Found]:
    from asexlatent.symmetry import CrystalError, read_table

    try:
        rows = select(index, lambda: read_table(path, degrees=settings.degrees))
        for number, row in rows:
            yield f"{path}@{number}", _row(row, settings, species), row.extra
    except CrystalError as error:  # of the table as a whole
        raise ReadError(str(error).removeprefix(f"{path}: ")) from None


def _row(row: TableRow, settings: Settings, species: list[str]) -> Candidate:
    from asexlatent.symmetry import CrystalError

    symbols = next((row.extra[c].split() for c in SPECIES_COLUMNS if row.extra.get(c)), species)
    try:
        if len(symbols) > 1 and symbols is species:
            raise CrystalError(
                f"the target has {' and '.join(species)}: add a column 'species' to the table with "
                "the element of each used site, separated by blanks"
            )
        return row.crystal(symbols[0] if len(symbols) == 1 else symbols, settings.bad_sites)
    except CrystalError as error:
        return error


def _notes(candidate: Candidate, symprec: float) -> tuple[str, ...]:
    """What is not as the user may think, in words."""
    from ase import Atoms
    from ase.constraints import FixSymmetry

    if isinstance(candidate, Atoms):
        notes = []
        kinds = {type(c).__name__ for c in candidate.constraints if not isinstance(c, FixSymmetry)}
        if kinds:
            notes.append(f"its constraints ({', '.join(sorted(kinds))}) are kept but not obeyed")
        used = _tolerance(candidate, symprec)
        if used < symprec:
            notes.append(
                "atoms are nearer to each other than --symprec: symmetry looked for at "
                f"{used:.2g} Å"
            )
        return tuple(notes)
    dropped = getattr(getattr(candidate, "projection", None), "dropped", ())
    return tuple(f"left out: {why}" for _, why in dropped)


def _tolerance(atoms: Atoms, symprec: float) -> float:
    from asexlatent.symmetry import CrystalError
    from asexlatent.symmetry.detect import fitting_tolerance

    try:
        return fitting_tolerance(atoms, symprec)
    except CrystalError:  # which is said where the symmetry is looked for
        return symprec


def _header(path: Path) -> list[str]:
    import csv
    import zlib

    from asexlatent.symmetry.table import open_table

    try:
        with open_table(path) as handle:
            return [name.strip() for name in next(csv.reader(handle), [])]
    except (OSError, EOFError, zlib.error, csv.Error):
        return []


def _size(path: Path) -> int | None:
    """Number of frames of a file where a look at its index or one quick pass tells."""
    if path.is_dir():
        return len(_cifs(path))
    from asexlatent.symmetry.table import is_table, open_table

    suffix = path.suffix.lower()
    if suffix == ".traj":
        from ase.io.trajectory import TrajectoryReader

        with TrajectoryReader(str(path)) as trajectory:
            return len(trajectory)
    if suffix == ".db":
        import ase.db

        return ase.db.connect(str(path), serial=True).count()
    if is_table(path):
        with open_table(path) as handle:
            return max(sum(1 for line in handle if line.strip()) - 1, 0)
    if suffix in (".extxyz", ".xyz"):
        from asexlatent.cli.frames import xyz_blocks

        return sum(1 for _ in xyz_blocks(path))
    return 1 if suffix == ".cif" else None
