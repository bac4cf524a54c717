"""One or several crystals as ASE's `Optimizable` whose x are latent variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.filters import Filter
from ase.optimize.optimize import RestartError
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent.model import LatentModel
from asexlatent.latent.space import LatentBatch, LatentLoss, LatentMetric
from asexlatent.latent.stage import LatentOptions
from asexlatent.latent.starts import latent_starts
from asexlatent.optimize import BatchMinimizer, Objective, Status
from asexlatent.optimize.constraints import unwrap
from asexlatent.optimize.crystal_set import CrystalSet
from asexlatent.symmetry import CrystalError, SymmetricCrystal, TableRow
from asexlatent.symmetry.detect import Embedding, SymmetrizedAtoms

Member = Atoms | SymmetricCrystal | TableRow


class LatentSet(CrystalSet):
    """Crystals with their conditions fixed; x holds z of the best sample of each, (n L,).

    Parameters
    ----------
    members : Atoms, SymmetricCrystal, TableRow, or a list of them
        What is no `Atoms` becomes one, in its conventional cell.
    environment, objective, detection, placement
        As for `CrystalSet`.
    model : LatentModel
    options : LatentOptions
        Its starts, samples, prior, mode and solver.
    seed : int
        Of the starts.
    """

    face = "LatentRefiner"
    restart_format = "asexlatent-latent-restart-1"

    def __init__(
        self,
        members: Member | Sequence[Member],
        environment: LocalEnvironment,
        objective: Objective,
        model: LatentModel,
        options: LatentOptions,
        seed: int,
        detection: dict[str, Any],
        placement: dict[str, Any],
    ):
        single = isinstance(members, Atoms | Filter | SymmetricCrystal | TableRow)
        listed = [members] if single else list(members)
        self._given: dict[int, SymmetricCrystal] = {}
        self._broken: dict[int, str] = {}
        atoms = [self._as_atoms(k, member) for k, member in enumerate(listed)]
        if single and self._broken:
            raise CrystalError(self._broken[0])
        self.model, self.options, self.seed = model, options, seed
        self._written = False
        super().__init__(
            atoms[0] if single else atoms,
            environment,
            objective,
            solver=options.make_solver(),
            fix_cell=False,
            detection=detection,
            placement=placement,
        )

    # -- opening, restarting ----------------------------------------------------------------

    def _as_atoms(self, k: int, member: Member) -> Atoms:
        if isinstance(member, TableRow):
            try:
                member = member.crystal()
            except CrystalError as error:
                self._broken[k] = str(error)
                return Atoms()
        if isinstance(member, SymmetricCrystal):
            self._given[k] = member
            atoms = member.to_atoms()
            own_cell(member).embedding.write_back(atoms, member)
            return atoms
        return member

    def open(self) -> None:
        """Find the condition of every member and draw where its latent variables begin."""
        self._written = False
        super().open()

    def refresh(self, fmax: float) -> None:
        """Take up what the caller changed, and bring the atoms to what is decoded."""
        super().refresh(fmax)
        if not self._written:
            self._written = True
            self._write()

    def restore(self, data: dict[str, Any], path: Any) -> None:
        """Continue from `saved()`."""
        self._written = True
        super().restore(data, path)
        saved = self.minimizer.losses
        batch = self.minimizer.batch
        now = self.minimizer.objective.bind(batch).evaluate(self.minimizer.variables).value
        if not torch.allclose(saved, now, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise RestartError(
                f"{path} does not fit these crystals (it was written with another model, target or "
                "option): delete the restart file to start afresh"
            )

    def _frame(self, k: int, atoms: Atoms) -> SymmetrizedAtoms:
        if k in self._broken:
            raise CrystalError(self._broken[k])
        given = self._given.pop(k, None)  # later on the caller may have moved the atoms
        frame = super()._frame(k, atoms) if given is None else own_cell(given)
        problem = self.model.problem(frame.crystal)
        if problem:
            raise CrystalError(problem)
        return frame

    def _freedom(self, k: int) -> Tensor:
        free = super()._freedom(k)
        if not free.all():
            raise CrystalError(
                "latent refinement moves the cell and all atoms together: take the filter or the "
                "constraint off"
            )
        return free

    def _bind(self) -> None:
        self._check_any()
        crystals = [frame.crystal for frame in self.frames.values()]
        self._free = {k: self._freedom(k) for k in self.frames}
        options = self.options
        self._bind_at(
            latent_starts(
                self.model, crystals, list(self.frames), options.starts, options.samples, self.seed
            )
        )
        self._note()

    def _bind_at(self, z: Tensor) -> None:
        """Begin at z, shape (members, samples, L)."""
        crystals = [frame.crystal for frame in self.frames.values() for _ in range(z.shape[1])]
        batch = LatentBatch.of(
            self.model, crystals, z.flatten(0, 1), self.options.mode, **self.placement
        )
        self.minimizer = BatchMinimizer(
            batch,
            LatentLoss(self.objective, self.options.prior_weight),
            self.solver,
            fmax=0.0,
            metric=LatentMetric.at,
        )

    # -- best samples -----------------------------------------------------------------------

    def _best(self) -> Tensor:
        """Index among all samples of the best one of each member."""
        value = torch.nan_to_num(self.minimizer.losses, nan=torch.inf)
        samples = self.options.samples
        best = value.view(-1, samples).argmin(dim=1)
        return torch.arange(0, len(value), samples, device=value.device) + best

    def _of_best(self, variables: Tensor) -> Tensor:
        return variables.view(-1, self.minimizer.batch.latent)[self._best()]

    def _free_variables(self) -> list[np.ndarray]:
        batch = self.minimizer.batch
        with torch.no_grad():
            parts = batch.crystals.split(batch.decode(self.minimizer.variables))
        return [parts[k] for k in self._best().tolist()]

    def _losses(self) -> list[float]:
        """Eq. 1, without the prior."""
        z = self._of_best(self.minimizer.variables)
        return (self.minimizer.losses[self._best()] - self.minimizer.objective.prior(z)).tolist()

    def _reports(self) -> list[tuple[Status, str]]:
        reports = self.minimizer.reports()
        return [reports[k] for k in self._best().tolist()]

    def _note(self) -> None:
        super()._note()
        if not self._written:  # the atoms are still the caller's; their loss is not known
            for k in self.frames:
                unwrap(self.targets[k])[0].info.pop("asx_loss", None)

    # -- Optimizable ------------------------------------------------------------------------

    def ndofs(self) -> int:
        """Number of latent variables of all members."""
        return len(self.frames) * self.minimizer.batch.latent

    def get_x(self) -> np.ndarray:
        """z of the best sample of each member, shape (n L,)."""
        return self._of_best(self.minimizer.variables).flatten().cpu().numpy()

    def set_x(self, x: np.ndarray) -> None:
        """Set z of all samples of each member, and the atoms with them."""
        fmax = self.minimizer.fmax
        z = torch.as_tensor(x).view(len(self.frames), 1, -1)
        self._bind_at(z.expand(-1, self.options.samples, -1).clone())
        self._written = True
        self._write()
        self.minimizer.resume(fmax)

    def get_gradient(self) -> np.ndarray:
        """Gradient of what is minimised with respect to z, shape (n L,)."""
        return self._of_best(self.minimizer.gradient).flatten().cpu().numpy()

    def gradient_norm(self, gradient: np.ndarray) -> float:
        """Largest norm of the gradient of any member."""
        latent = self.minimizer.batch.latent
        return float(np.linalg.norm(np.reshape(gradient, (-1, latent)), axis=1).max())

    def converged(self, gradient: np.ndarray, fmax: float) -> bool:
        """Every member below `fmax`, none failed, none on a plateau without neighbours."""
        if self.failures or not self.gradient_norm(gradient) < fmax:
            return False
        isolated = self.minimizer.isolated[self._best()]
        return not isolated.any() and all(
            status is not Status.FAILED for status, _ in self._reports()
        )


def own_cell(crystal: SymmetricCrystal) -> SymmetrizedAtoms:
    """Return the crystal as its own `Atoms`: conventional cell, atoms site after site."""
    sizes = [site.position.multiplicity for site in crystal.sites]
    embedding = Embedding(
        transformation=np.eye(3),
        rotation=np.eye(3),
        origin=np.zeros(3),
        site=np.repeat(np.arange(len(sizes)), sizes),
        operation=np.concatenate([np.arange(size) for size in sizes]),
        shift=np.zeros((sum(sizes), 3), dtype=np.int64),
    )
    return SymmetrizedAtoms(crystal, embedding, 0.0, 0.0)
