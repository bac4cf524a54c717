"""The result of a screening as files: ranked database, tables, CIFs, summary."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asexlatent.screening.rows import COLUMNS, ScreenRow
from asexlatent.screening.store import pack_crystal
from asexlatent.whole_file import write_whole

if TYPE_CHECKING:
    from ase import Atoms

    from asexlatent.screening.result import ScreenResult

DATABASE, RANKED_TABLE, ALL_TABLE, SUMMARY, CIFS = (
    "ranked.db",
    "ranked.csv",
    "screened.csv",
    "summary.json",
    "cif",
)
_LONG = ("net_key", "net_key_relaxed")  # texts of pages: in the data of the database only
_CIF_NAME = re.compile(r"\d{4,}_[A-Za-z0-9]+_\d+_[A-Za-z0-9+~-]+\.cif")


def write_result(
    result: ScreenResult,
    folder: str | Path,
    top: int = 20,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write everything into a folder; every file is there whole or not at all.

    What an earlier call left is replaced, so that nothing is in it twice.

    Parameters
    ----------
    result : ScreenResult
    folder : path
        Made if it is not there. Gets ``ranked.db`` (an ASE database, one row for each distinct
        crystal, in the order of their ranks), ``ranked.csv`` (the same as a table),
        ``screened.csv`` (one line per candidate), ``cif/`` (the best crystals that kept the
        motif) and ``summary.json``.
    top : int
        How many CIFs.
    about : mapping, optional
        Further contents of ``summary.json``.
    """
    folder = Path(folder)
    write_ranking(result, folder, top)
    write_whole(
        folder / SUMMARY, json.dumps(summary(result) | _plain(about or {}), indent=2) + "\n"
    )


def write_ranking(result: ScreenResult, folder: Path, top: int = 20) -> None:
    """As `write_result`, but for the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    write_database(result, folder / DATABASE)
    columns = [name for name in COLUMNS if name not in _LONG]
    write_whole(folder / RANKED_TABLE, _table(result.ranked, columns))
    write_whole(folder / ALL_TABLE, _table(result.rows, columns))
    _write_cifs(result, folder / CIFS, top)


def remove_ranking(folder: Path) -> None:
    """Remove what `write_ranking` wrote, and nothing else."""
    for name in (DATABASE, RANKED_TABLE, ALL_TABLE):
        (folder / name).unlink(missing_ok=True)
    cifs = folder / CIFS
    if cifs.is_dir():
        _remove_cifs(cifs)
        if not any(cifs.iterdir()):
            cifs.rmdir()


def write_database(result: ScreenResult, path: str | Path) -> None:
    """Write an ASE database of the ranked crystals, replacing the file at once.

    A row holds the relaxed structure in its conventional cell with its total energy. Key-value
    pairs are the columns of the tables where the names are not taken by ASE (``energy_per_atom``
    in place of ``energy``) and ``potential``, the name of the calculator. ``data`` holds the full
    keys of the nets, the structure before relaxation, the candidates that the crystal stands
    for, and the settings.

    Raises
    ------
    OSError
        It cannot be written, such as on a full disk; what was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    _remove_database(temporary)
    try:
        _fill_database(result, temporary)
        os.replace(temporary, path)
    except (OSError, sqlite3.OperationalError) as error:
        _remove_database(temporary)
        if isinstance(error, OSError):
            raise
        full = "full" in str(error)  # SQLite has no error numbers of the system
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def _remove_database(path: Path) -> None:
    """Remove a database that was not finished, and the journal that belongs to no other."""
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


def _fill_database(result: ScreenResult, path: Path) -> None:
    from ase.db import connect

    duplicates = _duplicates(result.rows)
    with connect(str(path), type="db", append=False, use_lock_file=False) as database:
        for row in result.ranked:
            data = {
                **_plain(row.values()),
                "candidate": None if row.crystal is None else pack_crystal(row.crystal),
                "duplicates": duplicates.get(row.index, []),
                "settings": _plain(result.settings),
            }
            pairs = _key_values(row) | {"potential": result.calculator}
            database.write(_relaxed_atoms(row), key_value_pairs=pairs, data=data)
    connect(str(path), type="db", use_lock_file=False).metadata = {
        "title": "Crystals ranked by asexlatent",
        "counts": result.counts,
        "settings": _plain(result.settings),
    }


def summary(result: ScreenResult) -> dict[str, Any]:
    """Contents of ``summary.json``: counts, rounds, references, settings."""
    return {
        "counts": result.counts,
        "rounds": result.rounds(),
        "emax": result.emax,
        "calculator": result.calculator,
        "references": {
            composition: {"name": found.name, "energy": found.energy, "note": found.note}
            for composition, found in result.references.items()
        },
        "best": [
            _plain({k: v for k, v in row.values().items() if k not in _LONG})
            for row in result.ranked[:10]
        ],
        "settings": _plain(result.settings),
    }


def _relaxed_atoms(row: ScreenRow) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = row.relaxed.to_atoms()
    atoms.info = {}
    atoms.wrap()
    atoms.calc = SinglePointCalculator(atoms, energy=row.energy * len(atoms))
    return atoms


_RENAMED = {"energy": "energy_per_atom", "index": "source_index", "duplicates": "n_duplicates"}


def _key_values(row: ScreenRow) -> dict[str, Any]:
    """Pairs that ASE's database takes: no text that looks like a number or a truth value."""
    pairs = {}
    for name, value in row.values().items():
        if name in _LONG or (isinstance(value, str) and _looks_like_a_value(value)):
            continue
        pairs[_RENAMED.get(name, name)] = value
    return pairs


def _looks_like_a_value(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _duplicates(rows: Iterable[ScreenRow]) -> dict[int, list[dict[str, Any]]]:
    """Candidates that each ranked one stands for."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row.duplicate_of is not None:
            said = {"index": row.index, "source": row.source, "by": row.duplicate_by}
            found.setdefault(row.duplicate_of, []).append(said)
    return found


def _table(rows: Iterable[ScreenRow], columns: list[str]) -> str:
    handle = io.StringIO()
    writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row.values() for row in rows)
    return handle.getvalue()


def _write_cifs(result: ScreenResult, folder: Path, top: int) -> None:
    """The best as CIFs; those of an earlier call go."""
    fresh = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    best = [row for row in result.ranked if row.valid_relaxed][:top]
    for row in best:
        row.relaxed.to_cif(fresh / cif_name(row))
    folder.mkdir(exist_ok=True)
    _remove_cifs(folder)
    for path in sorted(fresh.iterdir()):
        os.replace(path, folder / path.name)
    fresh.rmdir()


def _remove_cifs(folder: Path) -> None:
    for path in folder.iterdir():
        if _CIF_NAME.fullmatch(path.name):
            path.unlink()


def cif_name(row: ScreenRow) -> str:
    """Rank, formula, group and net, such as ``0001_C4_194_2xhcb.cif``."""
    formula = row.relaxed.to_atoms().get_chemical_formula()
    net = re.sub(r"[^A-Za-z0-9+~-]", "", row.net_relaxed)[:40] or "net"
    return f"{row.rank:04d}_{formula}_{row.space_group}_{net}.cif"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's own types."""
    return json.loads(json.dumps(values, default=_item))


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
