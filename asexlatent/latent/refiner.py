"""The ASE face of latent refinement."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from ase.optimize.optimize import DEFAULT_MAX_STEPS
from ase.parallel import world

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent.latent_set import LatentSet, Member
from asexlatent.latent.model import LatentModel
from asexlatent.latent.placement import placed_model
from asexlatent.latent.stage import LatentOptions
from asexlatent.optimize import DescriptorLoss, Objective, Solver
from asexlatent.optimize.ase_optimizer import CrystalSetOptimizer


class LatentRefiner(CrystalSetOptimizer):
    """Steer crystals to a local environment through the latent space of a model (Eq. 2).

    Used like `SymmetricDescriptorOptimizer`. The condition of each crystal (space group, Wyckoff
    positions, species) is kept; cell and coordinates become what the model decodes from latent
    variables z, and z moves down the gradient of Eq. 1. With the first `run` the atoms become the
    decoded crystal at which z begins, which is as a rule another one than they were; from then on
    they hold the best iterate. A latent result is a rough one: refine it in the representation
    space afterwards, as `asexlatent.latent.refine_dual_level` does for whole lists in rounds.

    Parameters
    ----------
    atoms : Atoms, SymmetricCrystal, TableRow, or a list of them
        `Atoms` change in place. What is no `Atoms` is taken with its symmetry as it is, nothing is
        detected, and becomes `Atoms` (``refiner.atoms``). Filters and constraints that hold
        something are refused.
    restart, logfile, trajectory, append_trajectory, master, comm, loginterval
        As for `SymmetricDescriptorOptimizer`.
    model : LatentModel or path, optional
        By default the model that ships with the package.
    environment : LocalEnvironment or str
    starts, samples, prior_weight, solver, mode
        See `LatentOptions`. The defaults are those of the method: one start from the prior, no
        weight on it, the conditioning of Algorithm 1. Of several samples the best is kept, and
        the log counts them all as active.
    seed : int
        Of the starts; keyed by the place in the list.
    objective : Objective, optional
        Instead of ``DescriptorLoss(environment)``.
    symprec, angle_tolerance, space_group
        Of the detection for `Atoms`, as in `asexlatent.symmetry.symmetrize`.
    device, dtype
        Where and in which precision to compute.

    Attributes
    ----------
    statuses, reasons, losses, converged_mask, crystals
        As for `SymmetricDescriptorOptimizer`.

    Raises
    ------
    CrystalError
        When a single crystal cannot be refined: the model does not know its space group or
        elements, or it has too many sites. In a list such a member gets the status "failed" and
        the others go on.
    ModelError
        There is no such model, or it is not a conditional one.

    Notes
    -----
    ``run(fmax, steps)`` is True when the norm of the gradient with respect to z is below `fmax`
    for every crystal.
    """

    def __init__(
        self,
        atoms: Member | Sequence[Member],
        restart: str | Path | None = None,
        logfile: IO | str | Path | None = "-",
        trajectory: Any = None,
        append_trajectory: bool = False,
        *,
        model: LatentModel | str | os.PathLike | None = None,
        environment: LocalEnvironment | str = "sp2",
        starts: str = "prior",
        samples: int = 1,
        prior_weight: float = 0.0,
        solver: str | Solver = "adam",
        mode: str = "straight_through",
        seed: int = 0,
        objective: Objective | None = None,
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
        crystals = LatentSet(
            atoms,
            environment,
            self.objective,
            placed_model(model, device),
            LatentOptions(
                starts=starts, samples=samples, prior_weight=prior_weight, solver=solver, mode=mode
            ),
            seed,
            detection={
                "symprec": symprec,
                "angle_tolerance": angle_tolerance,
                "space_group": space_group,
            },
            placement={"device": device, "dtype": dtype},
        )
        super().__init__(
            crystals,
            crystals.targets[0] if crystals.single else crystals.targets,
            restart=restart,
            logfile=logfile,
            trajectory=trajectory,
            append_trajectory=append_trajectory,
            master=master,
            comm=comm,
            loginterval=loginterval,
        )

    def run(self, fmax: float = 1e-3, steps: int = DEFAULT_MAX_STEPS) -> bool:
        """Run until converged or for `steps` steps; True if every crystal is converged."""
        return super().run(fmax=fmax, steps=steps)
