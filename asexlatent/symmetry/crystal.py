"""A crystal as symmetry sees it: space group, Wyckoff sites and the variables they leave free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from asexlatent.symmetry.lattice import (
    LatticeVariables,
    cell_from_parameters,
    cell_problem,
    lattice_variables,
)
from asexlatent.symmetry.wyckoff import (
    CrystalError,
    WyckoffPosition,
    check_space_group,
    hall_number,
    wyckoff_positions,
)

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure
    from pyxtal import pyxtal

    from asexlatent.symmetry.rows import RowProjection

__all__ = ["CrystalError", "Site", "SymmetricCrystal"]


@dataclass(frozen=True, eq=False)
class Site:
    """One inequivalent site.

    Attributes
    ----------
    species : chemical symbol.
    position : the Wyckoff position it occupies.
    free : (d,) its free fractional coordinates, in the order of ``position.variables``.
    """

    species: str
    position: WyckoffPosition
    free: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", _read_only(self.free))
        if self.free.shape != (self.position.dof,):
            raise CrystalError(
                f"Wyckoff position {self.position.label} of space group "
                f"{self.position.space_group} has {self.position.dof} free coordinates, "
                f"not {self.free.size}"
            )
        if self.species not in atomic_numbers:
            raise CrystalError(f"unknown chemical symbol {self.species!r}")

    def expand(self) -> NDArray[np.float64]:
        """All atoms of the site, (multiplicity, 3) fractional, not wrapped."""
        return self.position.expand(self.free)

    def __repr__(self) -> str:
        free = ", ".join(f"{value:.4f}" for value in self.free)
        return f"{self.species} {self.position.label}({free})"


@dataclass(frozen=True, eq=False, repr=False)
class SymmetricCrystal:
    """A crystal in the conventional cell of its space group, with nothing but free variables.

    Lengths are in Å and angles in radians; the setting is PyXtal's (unique axis b, hexagonal
    axes for rhombohedral groups, origin choice 2). Objects are immutable: to move the atoms,
    take :meth:`with_free_variables`.

    Attributes
    ----------
    space_group : number, 1 to 230.
    cell_free : the free cell parameters, in the order of ``lattice.names``.
    sites : the inequivalent sites, any number of them.
    info : provenance, carried along by every method; not used for anything here.
    projection : for a crystal made from a table row, how far the row was off its own symmetry.

    Raises
    ------
    CrystalError
        For a space group that does not exist, an impossible cell, sites of another group or
        values that are not finite numbers.
    """

    space_group: int
    cell_free: NDArray[np.float64]
    sites: tuple[Site, ...]
    info: dict[str, Any] = field(default_factory=dict)
    projection: RowProjection | None = None

    def __post_init__(self) -> None:
        check_space_group(self.space_group)
        for name, value in (
            ("space_group", int(self.space_group)),
            ("cell_free", _read_only(self.cell_free)),
            ("sites", tuple(self.sites)),
        ):
            object.__setattr__(self, name, value)
        names = self.lattice.names
        if self.cell_free.shape != (len(names),):
            raise CrystalError(
                f"space group {self.space_group} has the free cell parameters "
                f"{', '.join(names)}; {self.cell_free.size} values were given"
            )
        problem = cell_problem(self.cell_parameters)
        if problem:
            raise CrystalError(problem)
        for number, site in enumerate(self.sites):
            if site.position.space_group != self.space_group:
                raise CrystalError(
                    f"site {number} has a Wyckoff position of space group "
                    f"{site.position.space_group} in a crystal of space group {self.space_group}"
                )
            if not np.isfinite(site.free).all():
                raise CrystalError(f"site {number} has a coordinate that is not a finite number")

    @classmethod
    def build(
        cls,
        space_group: int,
        cell_free: ArrayLike,
        sites: Iterable[tuple[str, int | str, ArrayLike]],
        info: dict[str, Any] | None = None,
    ) -> SymmetricCrystal:
        """Make a crystal from plain values.

        Parameters
        ----------
        space_group : 1 to 230.
        cell_free : free cell parameters (Å, radians), such as (a, c) for a hexagonal group.
        sites : (species, Wyckoff position, free coordinates) each, where the position is an
            index (0 = general) or a letter, with or without multiplicity (``"c"``, ``"6c"``).
        info : provenance.
        """
        positions = wyckoff_positions(space_group)
        made = []
        for species, which, free in sites:
            if isinstance(which, str):
                found = [p for p in positions if which in (p.letter, p.label)]
            else:
                found = [p for p in positions if p.index == which]
            if not found:
                labels = ", ".join(p.label for p in positions)
                raise CrystalError(
                    f"space group {space_group} has no Wyckoff position {which!r}; it has {labels}"
                )
            made.append(Site(species, found[0], np.atleast_1d(np.asarray(free, dtype=float))))
        return cls(space_group, np.asarray(cell_free, dtype=float), tuple(made), dict(info or {}))

    # ------------------------------------------------------------------ what it is

    @property
    def lattice(self) -> LatticeVariables:
        """Which cell parameters are free."""
        return lattice_variables(self.space_group)

    @property
    def hall_number(self) -> int:
        """Hall number (1 to 530) of the setting."""
        return hall_number(self.space_group)

    @property
    def wyckoffs(self) -> list[str]:
        """Labels of the sites, such as ``["6c", "2a"]``."""
        return [site.position.label for site in self.sites]

    @property
    def n_sites(self) -> int:
        """Number of inequivalent sites."""
        return len(self.sites)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the conventional cell."""
        return sum(site.position.multiplicity for site in self.sites)

    @property
    def cell_parameters(self) -> NDArray[np.float64]:
        """a, b, c (Å), alpha, beta, gamma (radians), (6,)."""
        return self.lattice.parameters(self.cell_free)

    @cached_property
    def cell(self) -> NDArray[np.float64]:
        """Cell matrix (3, 3) in Å, lattice vectors as rows, a along x and b in the xy plane."""
        return _read_only(cell_from_parameters(self.cell_parameters))

    @property
    def volume(self) -> float:
        """Volume of the conventional cell in Å^3."""
        return float(np.linalg.det(self.cell))

    @property
    def free_variables(self) -> NDArray[np.float64]:
        """All free variables (n,): cell parameters (Å, radians), then coordinates site by site."""
        return np.concatenate([self.cell_free, *(site.free for site in self.sites)])

    def with_free_variables(self, variables: ArrayLike) -> SymmetricCrystal:
        """Return the same crystal with other values of :attr:`free_variables` (n,)."""
        values = np.asarray(variables, dtype=float)
        n_cell = len(self.cell_free)
        ends = np.cumsum([n_cell, *(site.position.dof for site in self.sites)])
        if values.shape != (ends[-1],):
            raise CrystalError(f"the crystal has {ends[-1]} free variables, not {values.size}")
        sites = tuple(
            Site(site.species, site.position, values[end - site.position.dof : end])
            for site, end in zip(self.sites, ends[1:], strict=True)
        )
        return replace(self, cell_free=values[:n_cell], sites=sites, info=dict(self.info))

    @property
    def symbols(self) -> list[str]:
        """Chemical symbol of every atom of the conventional cell, site after site."""
        return [site.species for site in self.sites for _ in range(site.position.multiplicity)]

    def scaled_positions(self) -> NDArray[np.float64]:
        """Fractional coordinates (n_atoms, 3), site after site, not wrapped."""
        return np.concatenate([np.empty((0, 3)), *(site.expand() for site in self.sites)])

    def __repr__(self) -> str:
        cell = ", ".join(
            f"{name}={value:.4f}"
            for name, value in zip(self.lattice.names, self.cell_free, strict=True)
        )
        sites = ", ".join(map(repr, self.sites))
        return f"<SymmetricCrystal of space group {self.space_group}: {cell}; {sites}>"

    # ------------------------------------------------------------------ other forms

    def to_atoms(self) -> Atoms:
        """``ase.Atoms`` of the conventional cell, site after site; ``info`` is carried over."""
        from ase import Atoms

        return Atoms(
            symbols=self.symbols,
            scaled_positions=self.scaled_positions(),
            cell=self.cell,
            pbc=True,
            info=dict(self.info),
        )

    def to_structure(self) -> Structure:
        """``pymatgen.core.Structure`` of the conventional cell, site after site."""
        from asexlatent.symmetry.convert import to_structure

        return to_structure(self)

    def to_pyxtal(self) -> pyxtal:
        """Return a ``pyxtal`` object with the same Wyckoff sites."""
        from asexlatent.symmetry.convert import to_pyxtal

        return to_pyxtal(self)

    def to_row(self) -> dict[str, float]:
        """Return the 39 columns of the table form; at most eight sites fit (CrystalError)."""
        from asexlatent.symmetry.rows import to_row

        return to_row(self)

    def to_cif(self, path: str | os.PathLike | None = None) -> str:
        """CIF text with the inequivalent sites and the symmetry operations; written if ``path``."""
        from asexlatent.symmetry.convert import to_cif

        return to_cif(self, path)

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        symprec: float = 1e-2,
        angle_tolerance: float = -1.0,
        space_group: int | str | None = None,
        max_displacement: float = 0.5,
    ) -> SymmetricCrystal:
        """Detect or impose the symmetry of periodic ``atoms``; see :func:`symmetrize`."""
        from asexlatent.symmetry.detect import symmetrize

        return symmetrize(atoms, symprec, angle_tolerance, space_group, max_displacement).crystal

    @classmethod
    def from_structure(cls, structure: Structure, **options: Any) -> SymmetricCrystal:
        """Detect the symmetry of an ordered pymatgen structure; options as in `from_atoms`."""
        from asexlatent.symmetry.convert import from_structure

        return from_structure(structure, **options)

    @classmethod
    def from_pyxtal(cls, struct: pyxtal, **options: Any) -> SymmetricCrystal:
        """Take over the group and sites of a three-dimensional atomic ``pyxtal`` object.

        ``options`` as in :meth:`from_atoms`: used only for an object in another setting.
        """
        from asexlatent.symmetry.convert import from_pyxtal

        return from_pyxtal(struct, **options)

    @classmethod
    def from_row(
        cls,
        row: Mapping[str, Any],
        species: str | Iterable[str] = "C",
        bad_sites: str = "fail",
        degrees: bool = False,
    ) -> SymmetricCrystal:
        """Build from one table row; see :func:`asexlatent.symmetry.rows.from_row`."""
        from asexlatent.symmetry.rows import from_row

        return from_row(row, species=species, bad_sites=bad_sites, degrees=degrees)

    @classmethod
    def from_cif(cls, path: str | os.PathLike, **options: Any) -> SymmetricCrystal:
        """Read a CIF file and detect its symmetry; options as in :meth:`from_atoms`."""
        from asexlatent.symmetry.convert import from_cif

        return from_cif(path, **options)


def _read_only(values: ArrayLike) -> NDArray[np.float64]:
    array = np.array(values, dtype=float)
    array.setflags(write=False)
    return array
