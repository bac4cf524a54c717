"""The descriptor loss as an ASE calculator, for ASE's own optimizers and filters."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from asexlatent.descriptor import LocalEnvironment
from asexlatent.descriptor.neighbors import neighbor_pairs


class DescriptorCalculator(Calculator):
    """Energy, forces and stress are Eq. 1 of the method and its derivatives.

    With it, BFGS, FIRE, ``FixSymmetry`` and ``FrechetCellFilter`` work on the descriptor. Every
    atom counts as a site, which is Eq. 1 with sites weighted by their multiplicity; where the
    multiplicities are equal, or with ``DescriptorLoss(..., site_weights="multiplicity")``, the
    value is that of `SymmetricDescriptorOptimizer`.

    Parameters
    ----------
    environment : LocalEnvironment or str
    extensive : bool
        Multiply by the number of atoms, as energies are: forces and thresholds then do not
        shrink with the size of the cell, and ``FrechetCellFilter`` shows the generalised
        gradient that `SymmetricDescriptorOptimizer` shows.
    device, dtype
        Of the computation.

    Notes
    -----
    The numbers have the unit of the loss, not eV; forces are per Å, stress per Å^3 with ASE's
    sign (positive when the cell wants to shrink). ``energies`` (per atom) sum to the energy;
    there is no temperature, so ``free_energy`` is the energy.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(
        self,
        environment: LocalEnvironment | str = "sp2",
        extensive: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        self.environment = environment
        self.extensive = extensive
        self.spectrum = environment.power_spectrum(dtype=dtype, device=device)
        self.device, self.dtype = device, dtype

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties at once; raises ValueError for a species without target."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        atoms = self.atoms
        self.environment.check_species(torch.as_tensor(atoms.numbers))
        options = {"dtype": self.dtype, "device": self.device}
        cell, scaled = _periodic(atoms, self.spectrum.rcut)
        positions = torch.tensor(scaled @ cell, **options)
        cell = torch.tensor(cell, **options)
        numbers = torch.tensor(atoms.numbers, dtype=torch.int64, device=self.device)
        index = torch.arange(len(atoms), device=self.device)
        pairs = neighbor_pairs(
            torch.tensor(scaled, **options), cell[None], index * 0, index, self.spectrum.rcut
        )
        strain = torch.zeros(3, 3, **options, requires_grad=True)
        positions.requires_grad_(True)
        origin = positions[pairs.centers]
        vectors = positions[pairs.neighbors] - origin + pairs.shifts.to(self.dtype) @ cell
        vectors = vectors + vectors @ strain
        spectra = self.spectrum(vectors, pairs.centers, numbers[pairs.neighbors], len(atoms))
        target = self.environment.target_for(spectra, numbers)
        energies = ((spectra - target) ** 2).mean(1)
        if not self.extensive:
            energies = energies / len(atoms)
        energy = energies.sum()
        gradient, virial = torch.autograd.grad(energy, (positions, strain))
        self.results = {
            "energy": energy.item(),
            "free_energy": energy.item(),
            "energies": energies.detach().cpu().numpy(),
            "forces": -gradient.cpu().numpy(),
        }
        if atoms.cell.rank == 3:
            virial = virial.cpu().numpy()
            stress = (virial + virial.T) / 2 / atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)


def _periodic(atoms: Atoms, rcut: float) -> tuple[np.ndarray, np.ndarray]:
    """Cell and fractional coordinates in which directions that are not periodic have room.

    Returns a full-rank cell (3, 3) whose images along non-periodic directions are farther than
    the cutoff, and coordinates (n, 3) for it.
    """
    if atoms.pbc.all():
        return atoms.cell.array, atoms.get_scaled_positions(wrap=False)
    cell = atoms.cell.complete().array.copy()
    extent = np.ptp(atoms.positions, axis=0).max(initial=0.0) + 2 * rcut + 1.0
    for k in np.flatnonzero(~atoms.pbc):
        normal = np.cross(cell[k - 2], cell[k - 1])
        normal /= np.linalg.norm(normal)
        cell[k] = normal * extent * 2
    return cell, atoms.positions @ np.linalg.inv(cell)
