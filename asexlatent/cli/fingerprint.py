"""A digest of what goes into a piece of work, the same in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def fingerprint(*values: Any) -> str:
    """SHA-256, as hex, of plain values, arrays, ``Atoms``, dataclasses and errors.

    Equal contents give equal digests; order counts, except in sets. Numbers count with all their
    digits.
    """
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | str | bytes):
        data = value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass")
        digest.update(f"{kind}:{len(data)}:".encode() + data)
    elif isinstance(value, np.generic):
        _feed(digest, value.item())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array:{value.dtype.str}:{value.shape}:".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        parts = _parts(value)
        digest.update(f"{kind}({len(parts)}:".encode())
        for part in parts:
            _feed(digest, part)


def _parts(value: Any) -> list[Any]:
    """What an object consists of, in an order of its own."""
    from ase import Atoms

    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim else [repr(value)]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, Atoms):
        constraints = [c.todict() if hasattr(c, "todict") else c for c in value.constraints]
        results = dict(getattr(value.calc, "results", {}))
        return [value.arrays, value.cell.array, value.pbc, value.info, constraints, results]
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, BaseException):
        return [str(value)]
    return [re.sub(r" at 0x[0-9a-f]+", "", repr(value))]
