"""Conditions: the discrete part of a crystal, which a conditional model keeps fixed.

The condition C of the method (section 3.2) is the space group and the list of Wyckoff positions;
here each position has its species too. What a model knows is its `Vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from asexlatent.symmetry import (
    CrystalError,
    SymmetricCrystal,
    WyckoffPosition,
    lattice_variables,
    wyckoff_positions,
)
from asexlatent.symmetry.wyckoff import check_space_group

MAX_POSITIONS = 27
"""Wyckoff positions of the group that has most of them (Pmmm)."""


@dataclass(frozen=True)
class Condition:
    """Space group and occupied Wyckoff positions of a crystal, in the order of its sites.

    Attributes
    ----------
    space_group : int
        1 to 230.
    sites : tuple of (species, Wyckoff index)
        Index 0 is the general position, as in `WyckoffPosition.index`.

    Raises
    ------
    CrystalError
        No such group, position or element; no site at all; or a position without free
        coordinates taken twice, which would put two atoms on one point.
    """

    space_group: int
    sites: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        check_space_group(self.space_group)
        sites = tuple((str(species), int(index)) for species, index in self.sites)
        object.__setattr__(self, "space_group", int(self.space_group))
        object.__setattr__(self, "sites", sites)
        if not sites:
            raise CrystalError("a condition needs at least one site")
        positions, taken = wyckoff_positions(self.space_group), set()
        for species, index in sites:
            if species not in atomic_numbers:
                raise CrystalError(f"unknown chemical symbol {species!r}")
            if not 0 <= index < len(positions):
                raise CrystalError(
                    f"space group {self.space_group} has the Wyckoff indices 0 to "
                    f"{len(positions) - 1}, not {index}"
                )
            if not positions[index].dof and index in taken:
                raise CrystalError(
                    f"{positions[index].label} of space group {self.space_group} has no free "
                    "coordinate and can be taken only once"
                )
            taken.add(index)

    @classmethod
    def from_crystal(cls, crystal: SymmetricCrystal) -> Condition:
        """Return the condition of a crystal."""
        sites = tuple((site.species, site.position.index) for site in crystal.sites)
        return cls(crystal.space_group, sites)

    @classmethod
    def parse(cls, text: str, species: str = "C") -> Condition:
        """Read ``166: C 6c, C 18h`` or ``166 6c 18h``: group, then letters or labels.

        Parameters
        ----------
        text : str
            A species before a position holds for this and the following ones.
        species : str
            Species of positions without one.
        """
        words = re.split(r"[\s,:;]+", text.strip())
        if not words[0].isdigit():
            raise CrystalError(
                f"{text!r} does not begin with a space group: write 166: C 6c, C 18h"
            )
        group, sites = int(words[0]), []
        check_space_group(group)
        by_name = {}
        for position in wyckoff_positions(group):
            by_name[position.letter] = by_name[position.label] = position.index
        for word in filter(None, words[1:]):
            if word in by_name:
                sites.append((species, by_name[word]))
            elif word in atomic_numbers:
                species = word
            else:
                labels = ", ".join(p.label for p in wyckoff_positions(group))
                raise CrystalError(
                    f"{word!r} in {text!r} is neither an element nor a Wyckoff position of space "
                    f"group {group}, which has {labels}"
                )
        return cls(group, tuple(sites))

    def __str__(self) -> str:
        names = (f"{s} {p.label}" for (s, _), p in zip(self.sites, self.positions, strict=True))
        return f"{self.space_group}: {', '.join(names)}"

    @cached_property
    def positions(self) -> tuple[WyckoffPosition, ...]:
        """Wyckoff position of each site."""
        table = wyckoff_positions(self.space_group)
        return tuple(table[index] for _, index in self.sites)

    @property
    def n_sites(self) -> int:
        """Number of inequivalent sites."""
        return len(self.sites)

    @property
    def n_atoms(self) -> int:
        """Atoms in the conventional cell."""
        return sum(position.multiplicity for position in self.positions)

    @property
    def n_free(self) -> int:
        """Free variables: cell parameters and coordinates."""
        cell = len(lattice_variables(self.space_group).names)
        return cell + sum(position.dof for position in self.positions)

    def crystal(self, free_variables: ArrayLike, info: dict | None = None) -> SymmetricCrystal:
        """Build the crystal with these free variables (n_free,), as in `SymmetricCrystal`."""
        values = np.asarray(free_variables, dtype=float)
        n_cell = len(lattice_variables(self.space_group).names)
        ends = n_cell + np.cumsum([position.dof for position in self.positions])
        sites = [
            (species, index, values[end - position.dof : end])
            for (species, index), position, end in zip(
                self.sites, self.positions, ends, strict=True
            )
        ]
        return SymmetricCrystal.build(self.space_group, values[:n_cell], sites, info)


@dataclass(frozen=True)
class Vocabulary:
    """What a model has seen: elements, space groups, number of sites.

    Attributes
    ----------
    species : tuple of str
        Chemical symbols, by atomic number.
    space_groups : tuple of int
        Those of the training data, ascending.
    max_sites : int
        Slots of a row.
    """

    species: tuple[str, ...]
    space_groups: tuple[int, ...]
    max_sites: int = 8

    @classmethod
    def of(cls, conditions: Iterable[Condition], max_sites: int = 8) -> Vocabulary:
        """Collect the vocabulary of some conditions."""
        conditions = list(conditions)
        species = {symbol for condition in conditions for symbol, _ in condition.sites}
        groups = {condition.space_group for condition in conditions}
        by_number = sorted(species, key=lambda symbol: atomic_numbers[symbol])
        return cls(tuple(by_number), tuple(sorted(groups)), max_sites)

    def problem(self, condition: Condition) -> str | None:
        """Why a model with this vocabulary cannot take a condition; None if it can."""
        strange = [symbol for symbol, _ in condition.sites if symbol not in self.species]
        if strange:
            return (
                f"the model does not know the element {strange[0]}: it was trained on "
                f"{', '.join(self.species)}"
            )
        if condition.n_sites > self.max_sites:
            return (
                f"{condition.n_sites} inequivalent sites are more than the {self.max_sites} that "
                "the model was trained on"
            )
        if condition.space_group not in self.space_groups:
            return (
                f"space group {condition.space_group} was not in the training data of the model, "
                f"which has {len(self.space_groups)} groups"
            )
        return None

    def check(self, conditions: Iterable[Condition]) -> None:
        """Raise CrystalError for the first condition that the model cannot take."""
        for number, condition in enumerate(conditions):
            problem = self.problem(condition)
            if problem:
                raise CrystalError(f"condition {number} ({condition}): {problem}")

    @property
    def width(self) -> int:
        """Length U of a condition vector."""
        return len(self.space_groups) + self.max_sites * (len(self.species) + MAX_POSITIONS)

    def one_hot(self, conditions: Sequence[Condition]) -> NDArray[np.float32]:
        """Condition vectors U of the method, shape (B, width).

        One-hot space group, then for each slot one-hot species and one-hot Wyckoff index; slots
        that are not used are zero.
        """
        made = np.zeros((len(conditions), self.width), dtype=np.float32)
        group_of = {group: k for k, group in enumerate(self.space_groups)}
        species_of = {symbol: k for k, symbol in enumerate(self.species)}
        per_slot = len(self.species) + MAX_POSITIONS
        for row, condition in zip(made, conditions, strict=True):
            row[group_of[condition.space_group]] = 1
            for slot, (symbol, index) in enumerate(condition.sites):
                start = len(self.space_groups) + slot * per_slot
                row[start + species_of[symbol]] = 1
                row[start + len(self.species) + index] = 1
        return made
