"""The ASE face: an optimizer for one `Atoms` or a list of them.

The contract is ASE's own (``ase/optimize/optimize.py``, 3.29). ASE has a private relative of
the idea of optimising in symmetry-reduced coordinates, ``ase/_4/optimize/_symopt``; it moves
one crystal with an energy and is not used here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from ase import Atoms
from ase.filters import Filter
from ase.optimize.optimize import DEFAULT_MAX_STEPS, Optimizer
from ase.parallel import world

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.crystal_set import CrystalSet
from asexlatent.optimize.driver import Status
from asexlatent.optimize.objective import DescriptorLoss, Objective
from asexlatent.optimize.solver import Solver
from asexlatent.symmetry import SymmetricCrystal


class CrystalSetOptimizer(Optimizer):
    """ASE's optimizer around a `CrystalSet`: what does not depend on the unknowns that it moves.

    Parameters
    ----------
    crystals : CrystalSet
    atoms
        As the caller gave them.
    restart, logfile, trajectory, append_trajectory, master, comm, loginterval
        As in ASE.

    Attributes
    ----------
    environment : LocalEnvironment
    """

    def __init__(self, crystals: CrystalSet, atoms: Any, **options: Any):
        self._set = crystals
        self.environment = crystals.environment
        super().__init__(crystals, **options)
        self.atoms = atoms

    # -- ASE's hooks ----------------------------------------------------------------------------

    def initialize(self) -> None:
        """Understand the crystals; the start of a run without a restart file."""
        self._set.open()

    def read(self) -> None:
        """Continue from the restart file.

        Raises
        ------
        ase.optimize.optimize.RestartError
            When the file is no JSON, or is of other crystals or another solver.
        """
        self._set.restore(self.load(), self.restart)

    def irun(self, fmax: float = 0.05, steps: int = DEFAULT_MAX_STEPS) -> Iterator[bool]:
        """Run as a generator; yields before the first step and after each."""
        self._begin(fmax)
        return super().irun(fmax=fmax, steps=steps)

    def run(self, fmax: float = 0.05, steps: int = DEFAULT_MAX_STEPS) -> bool:
        """Run until converged or for `steps` steps; True if every crystal is converged."""
        self._begin(fmax)
        return bool(super().run(fmax=fmax, steps=steps))

    def step(self) -> None:
        """Move every active crystal once and update the atoms."""
        if not self._set.step() and not self.converged_mask.all():
            self.max_steps = min(self.max_steps, self.nsteps + 1)  # nothing can move any more
        if self.restart is not None:
            self.dump(self._set.saved())

    def log(self, gradient: np.ndarray) -> None:
        """Write ASE's columns and, on the right, how many crystals still move."""
        if self.logfile is None:
            return
        name = type(self).__name__
        if self.nsteps == 0:
            self.logfile.write(
                f"{' ' * len(name)}  {'Step':>4s} {'Time':>8s} {'Energy':>15s}  {'fmax':>12s}"
                f" {'Active':>8s}\n"
            )
        now = time.strftime("%H:%M:%S", time.localtime())
        self.logfile.write(
            f"{name}:  {self.nsteps:3d} {now} {self.optimizable.get_value():15.6f} "
            f"{self.optimizable.gradient_norm(gradient):15.6f} {self._set.n_active:8d}\n"
        )

    def _begin(self, fmax: float) -> None:
        self._set.refresh(fmax)

    def _traj_write_image(self, description: dict) -> None:
        with self._opentraj() as traj:
            if hasattr(traj, "set_description"):
                traj.set_description(self.todict() | description)
            for image in self._set.iterimages():
                traj.write(image)

    def todict(self) -> dict[str, Any]:
        """What ASE keeps in the header of a trajectory."""
        target = {"environment": self.environment.name, "solver": self._set.solver.name}
        return super().todict() | target

    # -- beyond ASE -----------------------------------------------------------------------------

    @property
    def statuses(self) -> list[Status]:
        """Status of each crystal, in input order."""
        return [status for status, _ in self._set.reports()]

    @property
    def reasons(self) -> list[str]:
        """Reason of each status; empty where there is nothing to say."""
        return [reason for _, reason in self._set.reports()]

    @property
    def losses(self) -> np.ndarray:
        """Loss (Eq. 1) of each crystal, shape (n,)."""
        return self._set.losses()

    @property
    def converged_mask(self) -> np.ndarray:
        """Which crystals are converged, bool, shape (n,)."""
        return np.array([status is Status.CONVERGED for status in self.statuses])

    @property
    def crystals(self) -> list[SymmetricCrystal | None]:
        """Crystals as symmetry sees them; None for a failed one."""
        return self._set.crystals()


class SymmetricDescriptorOptimizer(CrystalSetOptimizer):
    """Steer crystals to a local environment, within their space groups, as ASE optimizers do.

    Use it where a script says ``BFGS(atoms)``. The atoms change in place; at every step they
    hold the best iterate so far, so structure, loss and gradient always belong together. No
    calculator is needed, and ``atoms.calc`` is not touched: the loss stands in the column
    "Energy" of the log and under ``atoms.info["asx_loss"]``, in no calculator.

    Parameters
    ----------
    atoms : Atoms, ase.filters.Filter, or a list of them
        Cell and positions are free within the space group. A ``FrechetCellFilter``,
        ``UnitCellFilter`` or ``StrainFilter`` (with ``mask``) restricts that as it says;
        ``FixAtoms`` on whole orbits holds their fractional coordinates; ``FixSymmetry`` and
        ``atoms.info["spacegroup"]`` declare the group instead of having it detected.
    restart : str or Path, optional
        JSON file with the state; written at every step, read if it exists.
    logfile, trajectory, append_trajectory, master, comm, loginterval
        As in ASE. A list writes its frames one after the other at each step.
    environment : LocalEnvironment or str
        The target; a name is looked up with `LocalEnvironment.named`.
    solver : str or Solver
    objective : Objective, optional
        Instead of ``DescriptorLoss(environment)``.
    fix_cell : bool
        Hold the cell.
    symprec, angle_tolerance, space_group
        Of the detection, as in `asexlatent.symmetry.symmetrize`.
    device, dtype
        Where and in which precision to compute.

    Attributes
    ----------
    statuses : list of Status
    reasons : list of str
        Why a crystal failed or stalled; empty where there is nothing to say.
    losses : ndarray, shape (n,)
        Eq. 1 of the method for each crystal; NaN for a failed one.
    converged_mask : ndarray of bool, shape (n,)

    Raises
    ------
    CrystalError
        When a single `Atoms` cannot be refined. In a list such a member gets the status
        "failed" in its place and the others go on.

    Notes
    -----
    ``run(fmax, steps)`` is True when the generalised gradient (`generalized_gradient`) of
    every crystal is below `fmax`. It ends early when no crystal can move any more.
    """

    def __init__(
        self,
        atoms: Atoms | Filter | Sequence[Atoms | Filter],
        restart: str | Path | None = None,
        logfile: IO | str | Path | None = "-",
        trajectory: Any = None,
        append_trajectory: bool = False,
        *,
        environment: LocalEnvironment | str = "sp2",
        solver: str | Solver = "lm",
        objective: Objective | None = None,
        fix_cell: bool = False,
        symprec: float = 1e-2,
        angle_tolerance: float = -1.0,
        space_group: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        master: bool | None = None,
        comm: Any = world,
        loginterval: int = 1,
    ):
        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        self.objective = DescriptorLoss(environment) if objective is None else objective
        crystals = CrystalSet(
            atoms,
            environment=environment,
            objective=self.objective,
            solver=solver,
            fix_cell=fix_cell,
            detection={
                "symprec": symprec,
                "angle_tolerance": angle_tolerance,
                "space_group": space_group,
            },
            placement={"device": device, "dtype": dtype},
        )
        super().__init__(
            crystals,
            atoms,
            restart=restart,
            logfile=logfile,
            trajectory=trajectory,
            append_trajectory=append_trajectory,
            master=master,
            comm=comm,
            loginterval=loginterval,
        )
