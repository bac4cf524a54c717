"""Frames as extended XYZ that ASE always reads back, whatever the user has put into them.

ASE writes some contents so that the file cannot be read any more (an empty string, a line break, a
backslash, a label with a blank), or so that they come back as something else (an ``energy`` in
``info`` becomes the result of a calculation). Here they are brought to a form that survives.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

INPUT_PREFIX = "asx_input_"
"""Before the name of what describes the input structure and not the refined one."""

_RESERVED_INFO = {"Lattice", "Properties", "pbc", "virial", "stress"}
# Columns that ASE leaves out on writing, or gives a meaning on reading.
_RESERVED_ARRAYS = {"species", "pos", "symbols", "Z", "charge", "move_mask"}
_BOOLEANS = {"T", "F", "true", "false", "True", "False", "TRUE", "FALSE"}
_INT32 = 2**31


def frame_text(atoms: Atoms, keep_results: bool) -> tuple[str, list[str]]:
    """Extended XYZ of one frame.

    Parameters
    ----------
    atoms
        Any number of atoms, none included. Not changed.
    keep_results
        Whether the results of its calculator still belong to this structure. If not, only its
        energies are kept, under the prefix `INPUT_PREFIX`.

    Returns
    -------
    text, notes
        The lines of the frame; and one line for each thing that could not be kept.
    """
    from ase import Atoms
    from ase.io.extxyz import write_xyz

    notes: list[str] = []
    clean = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    clean.info = _info(atoms, keep_results)
    for name, values in atoms.arrays.items():
        if name not in ("numbers", "positions"):
            _set_array(clean, name, values, notes)
    clean.set_constraint(_writable_constraints(atoms, notes))
    if keep_results and atoms.calc is not None:
        clean.calc = _results(atoms)
    columns = ["symbols", "positions", *(["move_mask"] if clean.constraints else [])]
    buffer = io.StringIO()
    write_xyz(buffer, clean, columns=columns + _extra_columns(clean))
    return buffer.getvalue(), notes


def _extra_columns(atoms: Atoms) -> list[str]:
    from ase.calculators.calculator import all_properties

    names = [name for name in atoms.arrays if name not in ("numbers", "positions")]
    results = atoms.calc.results if atoms.calc is not None else {}
    return names + [n for n in results if n in all_properties and _per_atom(results[n], len(atoms))]


def _info(atoms: Atoms, keep_results: bool) -> dict[str, Any]:
    from ase.calculators.calculator import all_properties

    info: dict[str, Any] = {}
    for key, value in atoms.info.items():
        name = _blanks(str(key)).replace("=", "_").replace("\\", "_") or "_"
        if name in all_properties or name in _RESERVED_INFO:
            name = INPUT_PREFIX + name
        while name in info:
            name += "_"
        _put(info, name, value)
    if atoms.calc is not None and not keep_results:
        for key in ("energy", "free_energy"):
            _put(info, INPUT_PREFIX + key, getattr(atoms.calc, "results", {}).get(key, ""))
    return info


def _put(info: dict[str, Any], name: str, value: Any) -> None:
    """Add a value in a form that survives; empty ones are left out."""
    if isinstance(value, bool | int | float | np.bool_ | np.number) and np.isrealobj(value):
        info[name] = value
    elif isinstance(value, np.ndarray) and value.ndim <= 1 and value.dtype.kind in "iufb":
        if value.size:
            info[name] = _signed(value)
    elif isinstance(value, str):
        words = _blanks(value)
        if words.strip():
            exact = _comes_back(words) or name.lower() == "uid"  # which ASE leaves as it is
            info[name] = (words if exact else "_JSON " + json.dumps(words)).replace("\\", "\\\\")
    elif type(value).__name__ == "Spacegroup":
        info[name] = value.symbol
    elif not (hasattr(value, "__len__") and len(value) == 0):
        info[name] = ("_JSON " + _json(value)).replace("\\", "\\\\")


def _comes_back(words: str) -> bool:
    """Whether ASE reads this text as text, and not as numbers, truth values or JSON.

    One that ends in an equals sign would swallow the next key.
    """
    tokens = re.findall(r"[^\s,]+", words)
    if not tokens or words.startswith("_JSON") or words.endswith("="):
        return False
    if all(token in _BOOLEANS for token in tokens):
        return False
    try:
        np.array(tokens, dtype=float)
    except ValueError:
        return True
    return False


def _blanks(words: str) -> str:
    """One line; every kind of white space and control character is a plain blank."""
    return "".join(" " if c.isspace() or not c.isprintable() else c for c in words)


def _json(value: Any) -> str:
    """JSON that ASE can read: it makes an array of it, which lists of unequal lengths are not."""
    plain = _plain(value)
    try:
        np.array(plain)
    except (ValueError, OverflowError):
        plain = json.dumps(plain)
    return json.dumps(plain)


def _plain(value: Any) -> Any:
    """JSON's own types; what JSON does not have becomes its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _set_array(atoms: Atoms, name: str, values: np.ndarray, notes: list[str]) -> None:
    """Add a per-atom array in a form that survives."""
    from ase.calculators.calculator import all_properties

    key = re.sub(r"[^A-Za-z0-9_.-]", "_", str(name)) or "_"
    if key in all_properties or key in _RESERVED_ARRAYS:
        key = INPUT_PREFIX + key
    array = np.asarray(values)
    array = array.reshape(len(atoms), int(np.prod(array.shape[1:])))
    kind = array.dtype.kind
    if kind == "O" and all(isinstance(item, int | float) for item in array.flat):
        array, kind = array.astype(float), "f"
    if kind in "OUSM" or kind in "mcV":
        words = [_word(item) for item in array.ravel().tolist()]
        array = np.array(words, dtype=object).reshape(array.shape)
    elif kind in "iu" and array.size and not -_INT32 < array.min() <= array.max() < _INT32:
        array = array.astype(float)  # ASE reads whole numbers as 32 bits
    elif kind == "u":
        array = array.astype(np.int32)
    while key in atoms.arrays:
        key += "_"
    if not array.shape[1]:
        notes.append(f"the array {name!r} has no column and is left out")
        return
    if np.ndim(values) > 2:
        notes.append(f"the array {name!r} of shape {np.shape(values)} is written as {array.shape}")
    atoms.arrays[key] = array[:, 0] if array.shape[1] == 1 else array


def _signed(values: np.ndarray) -> np.ndarray:
    """Whole numbers of a kind that ASE writes."""
    if values.dtype.kind != "u":
        return values
    return values.astype(np.int64 if values.max() < 2**63 else float)


def _word(item: Any) -> str:
    words = item.decode(errors="replace") if isinstance(item, bytes) else str(item)
    return re.sub(r"\s+", "_", _blanks(words).strip()) or "_"


def _writable_constraints(atoms: Atoms, notes: list[str]) -> list:
    """Those that the format can hold."""
    from ase.constraints import FixAtoms, FixCartesian

    kept = [c for c in atoms.constraints if isinstance(c, FixAtoms | FixCartesian)]
    lost = sorted({type(c).__name__ for c in atoms.constraints if c not in kept})
    if lost:
        notes.append(f"extended XYZ cannot hold the constraint {', '.join(lost)}")
    return kept


def _results(atoms: Atoms) -> Any:
    """Results of a calculator that the format can hold."""
    from ase.calculators.singlepoint import SinglePointCalculator

    fits = {}
    for name, value in getattr(atoms.calc, "results", {}).items():
        number = np.asarray(value) if value is not None else np.empty(0)
        if number.dtype.kind in "iuf" and number.size:
            whole = number.ndim == 0 or (name, number.shape) in (
                ("stress", (6,)),
                ("dipole", (3,)),
            )
            if whole or _per_atom(number, len(atoms)):
                fits[name] = value
    return SinglePointCalculator(atoms, **fits)


def _per_atom(value: Any, n_atoms: int) -> bool:
    shape = np.shape(value)
    return len(shape) in (1, 2) and shape[0] == n_atoms and n_atoms > 0
