"""Crystals of any groups and sizes as one set of flat tensors.

The paper (section 3.4.1) sorts structures by space group and pads them to one length. Here
every crystal keeps its own length in flat arrays with index maps, so nothing is padded, the
input order is kept, and an 8-atom crystal beside a 672-atom one costs what the two cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from asexlatent.optimize.slot_map import SlotMap
from asexlatent.symmetry import SymmetricCrystal
from asexlatent.symmetry.lattice import lattice_variables
from asexlatent.symmetry.site_symmetry import orbit_operations


@dataclass(frozen=True, eq=False)
class Subset:
    """Some crystals of a batch, as masks over what they own.

    Attributes
    ----------
    crystals, variables, sites : Tensor of bool, shape (B,), (V,), (S,)
    """

    crystals: Tensor
    variables: Tensor
    sites: Tensor


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Crystals as flat tensors and the maps from free variables to geometry.

    B crystals, S sites (inequivalent Wyckoff sites), N atoms (conventional cells), V free
    variables. The free variables of crystal b are contiguous: first its free cell parameters
    (Å, radians), then the free fractional coordinates of its sites, in the order of
    `SymmetricCrystal.free_variables`. An index equal to V means "not a free variable".

    What follows from the maps is computed once, when it is first asked for, and without asking
    the device for a number: a step loop must not wait for it.

    Attributes
    ----------
    variables : Tensor, shape (V,)
        The free variables R of the method, as the crystals came in.
    variable_crystal, variable_kind : Tensor, shape (V,)
        Owner of each variable; its kind (0 length in Å, 1 angle in radians, 2 fractional).
    first_variable, n_cell_variables : Tensor, shape (B,)
    cell_index, cell_constant : Tensor, shape (B, 6)
        Free variable (or V) and constant part of a, b, c, alpha, beta, gamma.
    site_index : Tensor, shape (S, 3)
        Free variable (or V) behind x, y, z of the Wyckoff table of each site.
    site_crystal, site_atom : Tensor, shape (S,)
        Owner of each site and its representative atom.
    multiplicity : Tensor, shape (S,)
        Atoms of the site in the conventional cell.
    atom_site, numbers : Tensor, shape (N,)
    atom_rotation, atom_translation : Tensor, shape (N, 3, 3) and (N, 3)
        Affine map from (x, y, z) of the site to the fractional coordinates of the atom.
    atom_operation : Tensor, shape (N, 3, 3)
        Linear part of an operation of the space group that takes the representative of the site to
        the atom, in fractional coordinates. The affine map of a special position is none: it has
        no inverse.
    """

    variables: Tensor
    variable_crystal: Tensor
    variable_kind: Tensor
    first_variable: Tensor
    n_cell_variables: Tensor
    cell_index: Tensor
    cell_constant: Tensor
    site_index: Tensor
    site_crystal: Tensor
    site_atom: Tensor
    multiplicity: Tensor
    atom_site: Tensor
    numbers: Tensor
    atom_rotation: Tensor
    atom_translation: Tensor
    atom_operation: Tensor

    @classmethod
    def from_crystals(
        cls,
        crystals: Sequence[SymmetricCrystal],
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> CrystalBatch:
        """Pack crystals; the only place that loops over them."""
        from ase.data import atomic_numbers

        if not crystals:
            raise ValueError("a batch needs at least one crystal")
        columns = _Columns([c.free_variables.size for c in crystals])
        for b, crystal in enumerate(crystals):
            columns.add(b, crystal, atomic_numbers)
        return cls(**columns.tensors(device, dtype))

    @property
    def n_crystals(self) -> int:
        """Number of crystals, B."""
        return self.cell_index.shape[0]

    @property
    def n_variables(self) -> int:
        """Number of free variables of all crystals together, V."""
        return self.variables.shape[0]

    @property
    def n_sites(self) -> int:
        """Number of inequivalent sites of all crystals together, S."""
        return self.site_crystal.shape[0]

    @cached_property
    def atom_crystal(self) -> Tensor:
        """Owner of each atom, shape (N,)."""
        return self.site_crystal[self.atom_site]

    @cached_property
    def atoms_per_crystal(self) -> Tensor:
        """Number of atoms of each crystal, shape (B,)."""
        total = torch.zeros_like(self.n_cell_variables)
        return total.index_add_(0, self.site_crystal, self.multiplicity)

    @cached_property
    def site_share(self) -> Tensor:
        """Fraction of the atoms of its crystal that each site makes, shape (S,)."""
        # in the precision of the variables: a quotient of integers would be float32
        return self.multiplicity.to(self.variables) / self.atoms_per_crystal[self.site_crystal]

    @cached_property
    def slot(self) -> Tensor:
        """Place of each variable among those of its own crystal, shape (V,)."""
        index = torch.arange(self.n_variables, device=self.variables.device)
        return index - self.first_variable[self.variable_crystal]

    @cached_property
    def cell_slots(self) -> Tensor:
        """Variable index of each crystal's free cell parameters, V where unused, shape (B, 6)."""
        slot = torch.arange(6, device=self.first_variable.device)
        used = slot < self.n_cell_variables[:, None]
        index = self.first_variable[:, None] + slot
        return torch.where(used, index, torch.full_like(index, self.n_variables))

    @cached_property
    def cell_tie(self) -> Tensor:
        """1 where a..gamma is the free cell parameter of a slot, else 0, shape (B, 6, 6)."""
        tie = self.cell_slots[:, :, None] == self.cell_index[:, None, :]
        return (tie & (self.cell_index < self.n_variables)[:, None, :]).to(self.variables)

    @cached_property
    def site_free(self) -> Tensor:
        """Which of x, y, z of each site are free variables, bool, shape (S, 3)."""
        return self.site_index < self.n_variables

    @cached_property
    def site_rotation(self) -> Tensor:
        """Fractional movement of each site's representative atom per x, y, z, shape (S, 3, 3).

        Zero for what is not free.
        """
        return self.atom_rotation[self.site_atom] * self.site_free[:, None, :]

    def sites_per_crystal(self) -> Tensor:
        """Number of inequivalent sites W of each crystal, shape (B,)."""
        return _count(self.site_crystal, self.n_crystals)

    def slot_map(self, n: int) -> SlotMap:
        """Variables as arrays of n slots for each crystal; kept for the next who asks."""
        if n not in self._slot_maps:
            self._slot_maps[n] = SlotMap.of(self, n)
        return self._slot_maps[n]

    @cached_property
    def _slot_maps(self) -> dict[int, SlotMap]:
        return {}

    def cell_parameters(self, variables: Tensor) -> Tensor:
        """Lengths (Å) and angles (radians) of all cells, shape (B, 6)."""
        return self.cell_constant + padded(variables)[self.cell_index]

    def cells(self, variables: Tensor) -> Tensor:
        """Cell matrices with lattice vectors as rows, ASE's standard form, shape (B, 3, 3)."""
        a, b, c, alpha, beta, gamma = self.cell_parameters(variables).unbind(1)
        zero = torch.zeros_like(a)
        cx = torch.cos(beta)
        cy = (torch.cos(alpha) - cx * torch.cos(gamma)) / torch.sin(gamma)
        # The floor is far below what the bounds allow; it keeps a wild trial finite.
        cz = torch.sqrt(torch.clamp(1 - cx**2 - cy**2, min=1e-8))
        rows = (a, zero, zero, b * torch.cos(gamma), b * torch.sin(gamma), zero)
        return torch.stack((*rows, c * cx, c * cy, c * cz), dim=1).reshape(-1, 3, 3)

    def site_coordinates(self, variables: Tensor) -> Tensor:
        """(x, y, z) of the Wyckoff table for each site, shape (S, 3)."""
        return padded(variables)[self.site_index]

    def geometry(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, 3, 3) and fractional coordinates of all atoms (N, 3), not wrapped."""
        xyz = self.site_coordinates(variables)[self.atom_site]
        scaled = torch.bmm(self.atom_rotation, xyz[:, :, None])[:, :, 0] + self.atom_translation
        return self.cells(variables), scaled

    def wrap(self, variables: Tensor) -> Tensor:
        """Free fractional coordinates wrapped into [0, 1); the crystals are unchanged.

        Whole numbers added to x, y, z of a Wyckoff table move each atom by whole lattice
        vectors (the entries of its maps are integers), so this is exact for every group.
        """
        return torch.where(self.variable_kind == 2, variables - variables.floor(), variables)

    def subset(self, keep: Tensor) -> Subset:
        """Masks of the crystals for which `keep`, shape (B,), is true."""
        return Subset(keep, keep[self.variable_crystal], keep[self.site_crystal])

    def select(self, keep: Tensor) -> CrystalBatch:
        """Return the batch of the crystals for which `keep`, shape (B,), is true."""
        crystal = torch.cumsum(keep, 0) - 1
        variable_keep = keep[self.variable_crystal]
        site_keep = keep[self.site_crystal]
        atom_keep = site_keep[self.atom_site]
        variable = torch.cumsum(variable_keep, 0) - 1
        n_variables = variable_keep.sum().reshape(1)
        variable = torch.cat((variable, n_variables))
        site = torch.cumsum(site_keep, 0) - 1
        atom = torch.cumsum(atom_keep, 0) - 1
        # A crystal without free variables may start at the very end of the array.
        return CrystalBatch(
            variables=self.variables[variable_keep],
            variable_crystal=crystal[self.variable_crystal[variable_keep]],
            variable_kind=self.variable_kind[variable_keep],
            first_variable=_exclusive_cumsum(self.variables_per_crystal()[keep]),
            n_cell_variables=self.n_cell_variables[keep],
            cell_index=variable[self.cell_index[keep]],
            cell_constant=self.cell_constant[keep],
            site_index=variable[self.site_index[site_keep]],
            site_crystal=crystal[self.site_crystal[site_keep]],
            site_atom=atom[self.site_atom[site_keep]],
            multiplicity=self.multiplicity[site_keep],
            atom_site=site[self.atom_site[atom_keep]],
            numbers=self.numbers[atom_keep],
            atom_rotation=self.atom_rotation[atom_keep],
            atom_translation=self.atom_translation[atom_keep],
            atom_operation=self.atom_operation[atom_keep],
        )

    def repeat(self, n: int) -> CrystalBatch:
        """Return the batch of all crystals n times, one copy of the batch after the other."""
        if n == 1:
            return self
        owned = {
            "variable_crystal": self.n_crystals, "first_variable": self.n_variables,
            "site_crystal": self.n_crystals, "site_atom": len(self.numbers),
            "atom_site": self.n_sites,
        }  # fmt: skip
        repeated = {}
        for field in dataclasses.fields(self):
            column = getattr(self, field.name)
            copies = [column] * n
            if field.name in owned:
                copies = [column + k * owned[field.name] for k in range(n)]
            elif field.name in ("cell_index", "site_index"):
                free, last = column < self.n_variables, n * self.n_variables
                copies = [torch.where(free, column + k * self.n_variables, last) for k in range(n)]
            repeated[field.name] = torch.cat(copies)
        return CrystalBatch(**repeated)

    def split(self, per_variable: Tensor) -> list[np.ndarray]:
        """Cut a tensor of shape (V, ...) into one NumPy array per crystal."""
        sizes = self.variables_per_crystal().tolist()
        return [part.cpu().numpy() for part in torch.split(per_variable, sizes)]

    def nbytes(self) -> int:
        """Memory of the maps, in bytes."""
        return sum(
            getattr(self, f.name).numel() * getattr(self, f.name).element_size()
            for f in dataclasses.fields(self)
        )

    def variables_per_crystal(self) -> Tensor:
        """Number of free variables of each crystal, shape (B,)."""
        return _count(self.variable_crystal, self.n_crystals)


def padded(variables: Tensor) -> Tensor:
    """Append to an array (V,) the zero that index V points to."""
    return torch.cat((variables, variables.new_zeros(1)))


def _count(owner: Tensor, n: int) -> Tensor:
    # a bincount would ask the device how long its result is
    return torch.zeros(n, dtype=torch.long, device=owner.device).index_add_(
        0, owner, torch.ones_like(owner)
    )


def _exclusive_cumsum(counts: Tensor) -> Tensor:
    return torch.cumsum(counts, 0) - counts


_REAL = {"variables", "cell_constant", "atom_rotation", "atom_translation", "atom_operation"}


class _Columns:
    """Growing NumPy columns of a batch under construction."""

    def __init__(self, sizes: list[int]):
        self.total = sum(sizes)
        self.first = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
        self.parts: dict[str, list[np.ndarray]] = {}
        self.n_sites = self.n_atoms = 0

    def append(self, name: str, value: np.ndarray) -> None:
        self.parts.setdefault(name, []).append(value)

    def add(self, b: int, crystal: SymmetricCrystal, atomic_numbers: dict[str, int]) -> None:
        lattice = lattice_variables(crystal.space_group)
        start = int(self.first[b])
        n_cell = crystal.cell_free.size
        index = np.where(lattice.index >= 0, lattice.index + start, self.total)
        self.append("cell_index", index[None])
        self.append("cell_constant", np.where(lattice.index >= 0, 0.0, lattice.constants)[None])
        self.append("n_cell_variables", np.array([n_cell]))
        # A free cell parameter is an angle when the first of a..gamma that it feeds is one.
        feeds = [int(np.argmax(lattice.index == k)) for k in range(n_cell)]
        kinds = [np.array([0 if k < 3 else 1 for k in feeds], dtype=np.int64)]
        offset = start + n_cell
        for site in crystal.sites:
            position = site.position
            index = np.full(3, self.total)
            index[position.variables] = offset + np.arange(position.dof)
            offset += position.dof
            kinds.append(np.full(position.dof, 2, dtype=np.int64))
            m = position.multiplicity
            self.append("site_index", index[None])
            self.append("site_crystal", np.array([b]))
            self.append("site_atom", np.array([self.n_atoms]))
            self.append("multiplicity", np.array([m]))
            self.append("atom_site", np.full(m, self.n_sites))
            self.append("numbers", np.full(m, atomic_numbers[site.species]))
            self.append("atom_rotation", position.rotations)
            self.append("atom_translation", position.translations)
            self.append("atom_operation", orbit_operations(position))
            self.n_sites += 1
            self.n_atoms += m
        self.append("variables", crystal.free_variables)
        self.append("variable_kind", np.concatenate(kinds))
        self.append("variable_crystal", np.full(crystal.free_variables.size, b))

    def tensors(self, device: torch.device | str | None, dtype: torch.dtype) -> dict[str, Tensor]:
        self.append("first_variable", self.first)
        return {
            name: torch.as_tensor(
                np.concatenate(parts), device=device, dtype=dtype if name in _REAL else torch.int64
            )
            for name, parts in self.parts.items()
        }
