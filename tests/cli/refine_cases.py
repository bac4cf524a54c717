"""Crystals and files shared by the tests of the command."""

from __future__ import annotations

import csv
from pathlib import Path

from asexlatent.symmetry import TABLE_COLUMNS, SymmetricCrystal

EXAMPLE = Path(__file__).parents[2] / "asexlatent" / "examples" / "random_sp2.extxyz"
GRAPHITE = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "b", []), ("C", "c", [])])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def csv_file(path: Path, *rows: dict, extra: tuple[str, ...] = ()) -> Path:
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, [*TABLE_COLUMNS, *extra])
        writer.writeheader()
        writer.writerows(rows)
    return path
