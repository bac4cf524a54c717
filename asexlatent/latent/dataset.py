"""Crystals to train on: representable ones, where they came from, and what was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asexlatent.latent.columns import free_columns, to_columns
from asexlatent.latent.conditions import Condition
from asexlatent.latent.standard import standardize
from asexlatent.symmetry import CrystalError, SymmetricCrystal

if TYPE_CHECKING:
    from ase import Atoms

PARENT_KEYS = ("asx_parent", "parent")
"""Names in ``info`` (columns of a table) that say which crystal a row was made from."""


@dataclass(frozen=True)
class Skipped:
    """A candidate that is not in the data, and why."""

    source: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training data in standard descriptions (see `standard`); n rows, C columns.

    Attributes
    ----------
    conditions : tuple of Condition
        n of them.
    values, mask : (n, C)
        Continuous columns (`columns`), and which of them mean something.
    parents : tuple of str
        Rows with the same parent describe one crystal; they are held out together.
    skipped : tuple of Skipped
        Candidates that could not be taken.
    max_sites : int
        Sites that fit into a row.
    """

    conditions: tuple[Condition, ...]
    values: NDArray[np.float64]
    mask: NDArray[np.bool_]
    parents: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    max_sites: int = 8

    @classmethod
    def from_candidates(
        cls,
        candidates: Iterable[SymmetricCrystal | Atoms | CrystalError],
        sources: Iterable[str] | None = None,
        *,
        parents: Iterable[str] | None = None,
        max_sites: int = 8,
        symprec: float = 1e-2,
    ) -> Dataset:
        """Take what can be represented; count and name the rest.

        Parameters
        ----------
        candidates : iterable
            Crystals as they are; the symmetry of `Atoms` is detected. An error stands for a row
            that could not be read.
        sources : iterable of str, optional
            Names of the candidates for `skipped`; by default their numbers.
        parents : iterable of str, optional
            By default what ``info`` says under one of `PARENT_KEYS`, else every row is its own.
        max_sites : int
            Crystals with more inequivalent sites are skipped.
        symprec : float
            Tolerance of the detection, Å.
        """
        rows, names, skipped = [], [], []
        given = iter(parents) if parents is not None else None
        labels = iter(sources) if sources is not None else None
        for number, candidate in enumerate(candidates):
            source = str(number) if labels is None else str(next(labels))
            parent = None if given is None else str(next(given))
            try:
                crystal = _understand(candidate, max_sites, symprec)
            except ValueError as error:
                skipped.append(Skipped(source, str(error)))
                continue
            rows.append(crystal)
            names.append(parent if parent is not None else _parent(crystal, source))
        return cls._build(rows, names, skipped, max_sites)

    @classmethod
    def _build(
        cls,
        crystals: Sequence[SymmetricCrystal],
        parents: Sequence[str],
        skipped: Sequence[Skipped],
        max_sites: int,
    ) -> Dataset:
        conditions = tuple(Condition.from_crystal(crystal) for crystal in crystals)
        width = len(free_columns(Condition(1, (("C", 0),)), max_sites))
        values, mask = np.zeros((len(crystals), width)), np.zeros((len(crystals), width), bool)
        for k, (crystal, condition) in enumerate(zip(crystals, conditions, strict=True)):
            values[k], mask[k] = to_columns(crystal, max_sites), free_columns(condition, max_sites)
        return cls(conditions, values, mask, tuple(parents), tuple(skipped), max_sites)

    def __len__(self) -> int:
        return len(self.conditions)

    def __repr__(self) -> str:
        groups = len({condition.space_group for condition in self.conditions})
        return (
            f"<Dataset of {len(self)} rows from {len(set(self.parents))} crystals in {groups} "
            f"space groups; {len(self.skipped)} skipped>"
        )

    def pick(self, index: NDArray) -> Dataset:
        """Rows with these indices (or where a mask is true)."""
        index = np.arange(len(self))[np.asarray(index)]
        return Dataset(
            tuple(self.conditions[k] for k in index),
            self.values[index],
            self.mask[index],
            tuple(self.parents[k] for k in index),
            (),
            self.max_sites,
        )

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Training rows and held-out rows, by parent: no crystal is on both sides.

        Which parents are held out depends on their names and the seed, not on the order of the
        rows or on what else is in the data set.

        Parameters
        ----------
        fraction : float
            Share of the parents to hold out, from 0 up to 1.
        seed : int
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"the share to hold out must be from 0 up to 1, not {fraction}")

        def place(parent: str) -> float:
            digest = hashlib.sha256(f"{seed}:{parent}".encode()).digest()
            return int.from_bytes(digest[:8], "big") / 2**64

        held = np.array([place(parent) < fraction for parent in self.parents], dtype=bool)
        return self.pick(~held), self.pick(held)

    def hash(self) -> str:
        """SHA-256 of everything that training sees, hexadecimal."""
        digest = hashlib.sha256(f"asexlatent dataset 1, {self.max_sites} sites\n".encode())
        for condition, parent in zip(self.conditions, self.parents, strict=True):
            digest.update(f"{condition} <{parent}>\n".encode())
        digest.update(np.round(self.values, 9).astype("<f8").tobytes())
        return digest.hexdigest()

    def reasons(self) -> Counter[str]:
        """How many candidates were skipped for which reason."""
        return Counter(skipped.reason for skipped in self.skipped)


def _understand(
    candidate: SymmetricCrystal | Atoms | CrystalError, max_sites: int, symprec: float
) -> SymmetricCrystal:
    if isinstance(candidate, Exception):
        raise candidate
    if not isinstance(candidate, SymmetricCrystal):
        candidate = SymmetricCrystal.from_atoms(candidate, symprec=symprec)
    if candidate.n_sites > max_sites:
        raise CrystalError(
            f"{candidate.n_sites} inequivalent sites are more than the {max_sites} of a row"
        )
    return standardize(candidate)


def _parent(crystal: SymmetricCrystal, source: str) -> str:
    for key in PARENT_KEYS:
        if crystal.info.get(key) not in (None, ""):
            return str(crystal.info[key])
    return source
