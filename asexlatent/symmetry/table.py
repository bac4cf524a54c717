"""Files of table rows, read one by one and by column name."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from asexlatent.symmetry.crystal import SymmetricCrystal
from asexlatent.symmetry.rows import SLOT_COLUMN, TABLE_COLUMNS, from_row
from asexlatent.symmetry.wyckoff import CrystalError


@dataclass(frozen=True)
class TableRow:
    """One row of a table file, not yet believed.

    Attributes
    ----------
    index : 0 for the first row of the table.
    line : line of the file that the row ends on, 1 for the header.
    values : the columns of the table form, as text.
    extra : all other columns, as text.
    degrees : whether the angles are in degrees.
    problem : what is wrong with the line itself (too few fields, ...), else ``None``.
    """

    index: int
    line: int
    values: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    degrees: bool = False
    problem: str | None = None

    def crystal(
        self, species: str | Iterable[str] = "C", bad_sites: str = "fail"
    ) -> SymmetricCrystal:
        """Build the crystal as :func:`from_row` does; the extra columns go to its ``info``."""
        if self.problem:
            raise CrystalError(self.problem)
        crystal = from_row(self.values, species, bad_sites, self.degrees)
        info = {key: _parsed(text) for key, text in self.extra.items() if text.strip()}
        return replace(crystal, info=info)


def is_table(path: str | os.PathLike) -> bool:
    """Whether a file name is that of a table: ``.csv``, or ``.csv.gz`` for a compressed one."""
    return os.fspath(path).lower().endswith((".csv", ".csv.gz"))


def open_table(path: str | os.PathLike) -> IO[str]:
    """Open a table as text, compressed or not."""
    # utf-8-sig: spreadsheets put a byte order mark before the first column name.
    options = {"newline": "", "encoding": "utf-8-sig", "errors": "replace"}
    if os.fspath(path).lower().endswith(".gz"):
        return gzip.open(path, "rt", **options)
    return open(path, **options)


def read_table(path: str | os.PathLike, degrees: bool = False) -> Iterator[TableRow]:
    """Read a CSV table of rows one by one, by the names in its header line.

    The header is checked at once; a line that is broken is still yielded, in its place, with its
    ``problem``. Sites may be fewer or more than eight; columns of other names go to ``extra``. A
    file whose name ends in ``.gz`` is decompressed on the way.

    Raises
    ------
    CrystalError
        The file is empty or damaged, or its header lacks a column or repeats one.
    OSError
        The file cannot be opened.
    """
    with open_table(path) as handle:
        try:
            header = [name.strip() for name in next(csv.reader(handle))]
        except (StopIteration, csv.Error):
            raise CrystalError(f"{path} is empty: it needs a header line spg,a,b,c,...") from None
        except (EOFError, zlib.error) as error:
            raise CrystalError(f"{path} is damaged: {error}") from None
    _check_header(path, header)
    return _rows(path, header, degrees)


def _parsed(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _check_header(path: str | os.PathLike, header: list[str]) -> None:
    for name in dict.fromkeys(header):
        if header.count(name) > 1:
            raise CrystalError(f"{path}: the header has the column {name!r} more than once")
    slots = {match[2] for match in map(SLOT_COLUMN.fullmatch, header) if match} or {"0"}
    needed = [*TABLE_COLUMNS[:7]]
    needed += [f"{name}{slot}" for slot in sorted(slots, key=int) for name in ("wp", "x", "y", "z")]
    missing = [name for name in needed if name not in header]
    if missing:
        raise CrystalError(
            f"{path}: the header lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        )


def _rows(path: str | os.PathLike, header: list[str], degrees: bool) -> Iterator[TableRow]:
    own = {name for name in header if name in TABLE_COLUMNS[:7] or SLOT_COLUMN.fullmatch(name)}
    with open_table(path) as handle:
        reader = csv.reader(handle)
        next(reader)
        index = 0
        whole = True
        while whole:
            problem, cells = None, []
            try:
                cells = next(reader)
                if not cells:
                    continue  # an empty line is no row
                if len(cells) != len(header):
                    problem = f"{len(cells)} fields in a line of a table with {len(header)} columns"
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"unreadable line: {error}"
            except (OSError, EOFError, zlib.error) as error:
                problem, whole = f"nothing from here on can be read: {error}", False
            line = dict(zip(header, cells, strict=False))
            yield TableRow(
                index,
                reader.line_num,
                {name: text for name, text in line.items() if name in own},
                {name: text for name, text in line.items() if name not in own},
                degrees,
                problem,
            )
            index += 1
