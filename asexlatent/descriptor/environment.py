"""The target: reference spectra and the motif rule of a wanted local environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from asexlatent.descriptor.motif import MotifReport, MotifRule
from asexlatent.descriptor.power_spectrum import PowerSpectrum
from asexlatent.descriptor.references import REFERENCES
from asexlatent.descriptor.structure import (
    derive_rule,
    first_shells,
    merge_equal,
    reference_spectra,
    select_sites,
)


@dataclass(frozen=True, eq=False)
class LocalEnvironment:
    """A local environment to steer to.

    Make one with `named`, `from_atoms`, `from_file` or `load`.

    Attributes
    ----------
    name : str
    spectra : Tensor
        (S, L) float64, reference power spectra, each different from the others.
    species : tuple of str
        (S,) the species of each reference site.
    rule : MotifRule
        Decides whether a crystal is valid.
    descriptor : dict
        Settings that rebuild the `PowerSpectrum`.
    source : str
        Where the reference comes from, for the record.
    structure : Atoms or None
        The structure that the spectra were computed from; `widened` needs it.
    centers : tuple of int
        Its atoms that serve as reference.
    """

    name: str
    spectra: Tensor
    species: tuple[str, ...]
    rule: MotifRule
    descriptor: dict[str, Any]
    source: str = ""
    structure: Atoms | None = field(default=None, repr=False)
    centers: tuple[int, ...] = ()
    numbers: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from ase.data import atomic_numbers

        unknown = [s for s in self.species if s not in atomic_numbers]
        if unknown:
            raise ValueError(f"environment {self.name}: {unknown[0]!r} is not a chemical symbol")
        spectra = torch.as_tensor(self.spectra, dtype=torch.float64)
        expected = (len(self.species), PowerSpectrum(**self.descriptor).n_components)
        if tuple(spectra.shape) != expected or not len(spectra):
            raise ValueError(
                f"environment {self.name}: spectra of shape {tuple(spectra.shape)}, but species "
                f"and descriptor settings ask for {expected}"
            )
        missing = sorted(set(self.species) - set(self.rule.coordination))
        if missing:
            raise ValueError(f"environment {self.name}: no coordination rule for {missing[0]}")
        object.__setattr__(self, "spectra", spectra)
        numbers = torch.tensor([atomic_numbers[s] for s in self.species])
        object.__setattr__(self, "numbers", numbers)

    @classmethod
    def named(cls, name: str, **descriptor: Any) -> LocalEnvironment:
        """One of the environments that come with the package.

        Parameters
        ----------
        name
            "sp2" (graphite), "sp3" (diamond), "sp" (a cumulene chain), "SiO4" (alpha-quartz),
            "MgO6" (rock salt), "TiO6" (rutile), "BN" (hexagonal); upper or lower case.
        **descriptor
            Settings of `PowerSpectrum` other than its defaults. ``rcut`` suits the bond lengths
            unless given, and compounds get ``weighting="species"``.

        Raises
        ------
        ValueError
            For an unknown name; lists the known ones.
        """
        known = {key.lower(): key for key in REFERENCES}
        if name.lower() not in known:
            raise ValueError(
                f"unknown environment {name!r}; choose one of {', '.join(REFERENCES)}, or make one "
                "from a structure with LocalEnvironment.from_file or from_atoms"
            )
        key = known[name.lower()]
        reference = REFERENCES[key]
        settings = {"rcut": reference.rcut, **descriptor}
        return cls.from_atoms(
            reference.build(), name=key, source=reference.source, **reference.rule, **settings
        )

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        sites: Sequence[int | str] | int | str | None = None,
        *,
        name: str | None = None,
        source: str = "",
        coordination: Mapping[str, int | Sequence[int]] | None = None,
        cutoffs: Mapping[str, float] | None = None,
        shortest: Mapping[str, float] | None = None,
        **descriptor: Any,
    ) -> LocalEnvironment:
        """The environment that some atoms of a structure have.

        Parameters
        ----------
        atoms
            The reference structure; any cell, wrapped or not. Directions without ``pbc`` have no
            images.
        sites
            Atom indices (from 0) or species, one or several, that serve as reference; all atoms
            when not given. Sites with equal spectra are merged.
        name, source
            For the record; the chemical formula when no name is given.
        coordination, cutoffs, shortest
            Parts of the `MotifRule`. What is not given is derived from the structure: two species
            are bonded up to the middle of the gap between the first and the second shell, the
            coordination is what the reference sites then have, and no pair may be nearer than 0.8
            of the shortest such distance in the structure.
        **descriptor
            Settings of `PowerSpectrum`. Without ``rcut`` it is 1.48 times the longest bond of the
            reference sites (2.1 Å for graphite); without ``weighting`` it is "Z" for an element and
            "species" for a compound.

        Raises
        ------
        ValueError
            When a site does not exist, has no neighbour, or has no gap behind its first shell.
        """
        name = name or atoms.get_chemical_formula()
        centers = select_sites(atoms, sites, name)
        if "rcut" not in descriptor:
            bonds = [shell.bonds[-1] for shell in first_shells(atoms, centers)]
            descriptor["rcut"] = round(1.48 * max(bonds), 2)
        if "weighting" not in descriptor and len(set(atoms.symbols)) > 1:
            descriptor["weighting"] = "species"
        if descriptor.get("weighting") == "species":
            descriptor.setdefault("species", sorted(set(atoms.symbols)))
        model = PowerSpectrum(**descriptor)
        rule = derive_rule(atoms, centers, coordination, cutoffs, shortest)
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        return cls._of(bare, tuple(centers), name, source, rule, model)

    @classmethod
    def _of(
        cls,
        atoms: Atoms,
        centers: tuple[int, ...],
        name: str,
        source: str,
        rule: MotifRule,
        model: PowerSpectrum,
    ) -> LocalEnvironment:
        """Spectra of the centres, equal ones merged."""
        spectra = reference_spectra(model, atoms, centers, name)
        symbols = [atoms.symbols[i] for i in centers]
        kept = merge_equal(spectra, symbols)
        species = tuple(symbols[i] for i in kept)
        return cls(name, spectra[kept], species, rule, model.settings(), source, atoms, centers)

    def widened(self, factor: float) -> LocalEnvironment:
        """Return the environment of the same reference sites with ``factor`` times the cutoff.

        Raises
        ------
        ValueError
            When the environment does not know the structure it was computed from.
        """
        if self.structure is None:
            raise ValueError(
                f"environment {self.name} was saved without its structure and cannot be widened: "
                "make it again with LocalEnvironment.from_file or from_atoms"
            )
        model = PowerSpectrum(**{**self.descriptor, "rcut": factor * self.descriptor["rcut"]})
        return self._of(self.structure, self.centers, self.name, self.source, self.rule, model)

    @classmethod
    def from_file(
        cls, path: str | Path, sites: Sequence[int | str] | int | str | None = None, **options: Any
    ) -> LocalEnvironment:
        """As `from_atoms`, for a structure file that `ase.io.read` takes (its last frame)."""
        import ase.io

        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no such file: {path}")
        try:
            atoms = ase.io.read(path)
        except Exception as error:  # readers raise whatever they like
            raise ValueError(f"{path} cannot be read as a structure: {error}") from error
        options.setdefault("name", path.stem)
        options.setdefault("source", path.name)
        return cls.from_atoms(atoms, sites, **options)

    def power_spectrum(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> PowerSpectrum:
        """The descriptor of this environment."""
        return PowerSpectrum(**self.descriptor, dtype=dtype, device=device)

    def check_species(self, numbers: Tensor) -> None:
        """Complain about atoms this environment has no reference for.

        Parameters
        ----------
        numbers
            (M,) long, atomic numbers of the sites.

        Raises
        ------
        ValueError
            Naming the species and the environment.
        """
        from ase.data import chemical_symbols

        foreign = sorted(set(numbers.tolist()) - set(self.numbers.tolist()))
        if foreign:
            names = ", ".join(chemical_symbols[z] for z in foreign)
            has = ", ".join(sorted(set(self.species)))
            raise ValueError(
                f"the crystal contains {names}, but environment {self.name} has only {has}: "
                "choose another target, or leave it out"
            )

    def target_for(self, spectra: Tensor, numbers: Tensor) -> Tensor:
        """The reference spectrum that each site is to be compared with.

        Parameters
        ----------
        spectra
            (M, L) spectra of the sites; used to choose, not differentiated.
        numbers
            (M,) long, atomic numbers of the sites.

        Returns
        -------
        Tensor
            (M, L), the nearest reference of the same species; constants for autograd, so that the
            residual ``spectra - target`` is differentiable. Rows are NaN for a species without
            reference (`check_species` says which).
        """
        match = numbers[:, None] == self.numbers.to(numbers.device)
        return nearest_reference(spectra, self.spectra.to(spectra), match)

    def valid(
        self,
        scaled: Tensor,
        cells: Tensor,
        crystal: Tensor,
        center_atoms: Tensor,
        numbers: Tensor,
    ) -> Tensor:
        """(B,) bool: which crystals obey the motif rule at every centre; see `MotifRule.valid`."""
        return self.rule.valid(scaled, cells, crystal, center_atoms, numbers)

    def check(self, atoms: Atoms) -> MotifReport:
        """Judge every atom of a structure; ``print`` the report."""
        return self.rule.check(atoms)

    def is_valid(self, atoms: Atoms) -> bool:
        """Whether every atom of a structure obeys the motif rule."""
        return self.check(atoms).valid

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        from asexlatent.descriptor.storage import save_environment

        save_environment(self, path)

    @classmethod
    def load(cls, path: str | Path) -> LocalEnvironment:
        """Read what `save` wrote; raises ValueError for any other or a damaged file."""
        from asexlatent.descriptor.storage import load_environment

        return load_environment(path)


@torch.no_grad()
def nearest_reference(spectra: Tensor, reference: Tensor, match: Tensor) -> Tensor:
    """Row of ``reference`` (R, L) nearest to each of ``spectra`` (M, L) where ``match`` (M, R).

    NaN where nothing matches.
    """
    if len(reference) == 1:
        target = reference.expand(len(spectra), -1)
    else:
        distance = torch.cdist(spectra.detach(), reference).masked_fill(~match, torch.inf)
        target = reference[distance.argmin(1)]
    return target.masked_fill(~match.any(1, keepdim=True), torch.nan)
