"""One or several crystals as ASE's `Optimizable`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.filters import Filter
from ase.optimize.optimize import RestartError
from ase.utils.abc import Optimizable

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.constraints import movable, unwrap
from asexlatent.optimize.driver import BatchMinimizer, Status
from asexlatent.optimize.memory import check_room
from asexlatent.optimize.metric import generalized_gradient
from asexlatent.optimize.objective import Objective
from asexlatent.optimize.registry import make_solver
from asexlatent.optimize.restart import (
    atom_symbols,
    frame_from_dict,
    frame_to_dict,
    is_at_some_step,
)
from asexlatent.optimize.solver import Solver
from asexlatent.symmetry import CrystalError, SymmetricCrystal
from asexlatent.symmetry.detect import SymmetrizedAtoms, symmetrize


class _Seen(NamedTuple):
    """What the caller's atoms were when we last looked or wrote."""

    numbers: np.ndarray
    cell: np.ndarray
    positions: np.ndarray


class CrystalSet(Optimizable):
    """One or several crystals as ASE's `Optimizable`: x holds their free variables."""

    face = "SymmetricDescriptorOptimizer"
    restart_format = "asexlatent-restart-1"

    def __init__(
        self,
        atoms: Atoms | Filter | Sequence[Atoms | Filter],
        environment: LocalEnvironment,
        objective: Objective,
        solver: str | Solver,
        fix_cell: bool,
        detection: dict[str, Any],
        placement: dict[str, Any],
    ):
        self.single = isinstance(atoms, Atoms | Filter)
        self.targets = [atoms] if self.single else list(atoms)
        self.environment = environment
        self.objective = objective
        self._wanted_solver = solver
        self.solver = make_solver(solver)
        self.fix_cell = fix_cell
        self.detection = detection
        self.placement = placement
        self.failures: dict[int, str] = {}
        self.frames: dict[int, SymmetrizedAtoms] = {}
        self.minimizer: BatchMinimizer | None = None
        self._seen: dict[int, _Seen] = {}
        self._free: dict[int, torch.Tensor] = {}

    # -- opening, restarting ----------------------------------------------------------------

    def open(self) -> None:
        """Find the symmetry of every member and start afresh."""
        self.failures, self.frames = {}, {}
        for k in range(len(self.targets)):
            try:
                atoms, _ = unwrap(self.targets[k], self.fix_cell)
                frame = self._frame(k, atoms)
                self.environment.check_species(torch.as_tensor(atoms.numbers))
                check_room(frame.crystal)
                self.frames[k] = frame
                self._freedom(k)
            except ValueError as error:
                if self.single:
                    raise
                self.frames.pop(k, None)
                self.failures[k] = str(error)
        self._bind()

    def _frame(self, k: int, atoms: Atoms) -> SymmetrizedAtoms:
        """Crystal behind the atoms of member k."""
        return symmetrize(atoms, **self.detection)

    def _bind(self) -> None:
        self._check_any()
        batch = CrystalBatch.from_crystals(
            [f.crystal for f in self.frames.values()], **self.placement
        )
        largest = int(batch.variables_per_crystal().max())
        self.solver = make_solver(self._wanted_solver, largest)
        self._free = {k: self._freedom(k) for k in self.frames}
        allowed = torch.cat(list(self._free.values())).to(batch.variables.device)
        self.minimizer = BatchMinimizer(
            batch, self.objective, self.solver, fmax=0.0, movable=allowed
        )
        self._note()

    def _check_any(self) -> None:
        if not self.frames:
            raise CrystalError(f"nothing to refine: {'; '.join(self.failures.values()) or 'empty'}")

    def _freedom(self, k: int) -> torch.Tensor:
        atoms, freedom = unwrap(self.targets[k], self.fix_cell)
        frame = self.frames[k]
        batch = CrystalBatch.from_crystals([frame.crystal])
        return movable(batch, 0, freedom, atoms, frame.embedding)

    def saved(self) -> dict[str, Any]:
        """State for the restart file, JSON-able by ASE."""
        tensors = self.minimizer.state_dict()
        frames = {str(k): frame_to_dict(f) for k, f in self.frames.items()}
        return {
            "format": self.restart_format,
            "solver": self.solver.name,
            "failures": {str(k): v for k, v in self.failures.items()},
            "frames": frames,
            "state": {name: tensor.cpu().numpy() for name, tensor in tensors.items()},
        }

    def restore(self, data: dict[str, Any], path: Any) -> None:
        """Continue from `saved()`."""
        remedy = f"delete the restart file {path} to start afresh"
        if not isinstance(data, dict) or data.get("format") != self.restart_format:
            raise RestartError(f"{path} is not a restart file of {self.face}")
        try:
            self.failures = {int(k): v for k, v in data["failures"].items()}
            self.frames = {int(k): frame_from_dict(f) for k, f in data["frames"].items()}
            if len(self.frames) + len(self.failures) != len(self.targets):
                raise ValueError("the number of crystals differs")
            for k, frame in self.frames.items():
                atoms, _ = unwrap(self.targets[k], self.fix_cell)
                if list(atoms.symbols) != atom_symbols(frame):
                    raise ValueError(f"crystal {k} has other atoms")
                if not is_at_some_step(frame, atoms):
                    raise ValueError(f"crystal {k} is another structure")
            self._bind()
            if data["solver"] != self.solver.name:
                raise ValueError(f"the solver was {data['solver']!r}, not {self.solver.name!r}")
            state = {k: torch.as_tensor(np.asarray(v)) for k, v in data["state"].items()}
            self.minimizer.load_state_dict(state)
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise RestartError(f"{path} does not fit these crystals ({what}): {remedy}") from error
        self._write()

    def refresh(self, fmax: float) -> None:
        """Take up what the caller changed between runs: atoms, constraints, the threshold."""
        if any(self._differs(k) for k in range(len(self.targets))):
            self.open()
        self.minimizer.resume(fmax)

    def _differs(self, k: int) -> bool:
        """Whether a member was moved, changed, held or repaired since we saw it last."""
        try:
            atoms, _ = unwrap(self.targets[k], self.fix_cell)
            held = k in self.frames and not torch.equal(self._freedom(k), self._free[k])
        except CrystalError:
            return k in self.frames
        before = self._seen.get(k)
        return (
            held
            or before is None
            or not np.array_equal(before.numbers, atoms.numbers)
            or not np.allclose(before.cell, atoms.cell, rtol=0, atol=1e-8, equal_nan=True)
            or not np.allclose(before.positions, atoms.positions, rtol=0, atol=1e-8, equal_nan=True)
        )

    # -- stepping -------------------------------------------------------------------------------

    @property
    def n_active(self) -> int:
        """Crystals still moving."""
        return self.minimizer.n_active

    def step(self) -> bool:
        """Move every active crystal once; False when none is active any more."""
        going = self.minimizer.step()
        self._write()
        return going

    def crystals(self) -> list[SymmetricCrystal | None]:
        """Best iterates, in input order."""
        parts = dict(zip(self.frames, self._free_variables(), strict=True))
        return [
            self.frames[k].crystal.with_free_variables(parts[k]) if k in parts else None
            for k in range(len(self.targets))
        ]

    # What is known of the members that did not fail, best iterates, in the order of `frames`.

    def _free_variables(self) -> list[np.ndarray]:
        return self.minimizer.batch.split(self.minimizer.variables)

    def _losses(self) -> list[float]:
        return self.minimizer.losses.tolist()

    def _reports(self) -> list[tuple[Status, str]]:
        return self.minimizer.reports()

    def _write(self) -> None:
        """Bring the caller's atoms to the best iterates."""
        for k, crystal in enumerate(self.crystals()):
            if crystal is None:
                continue
            atoms, _ = unwrap(self.targets[k], self.fix_cell)
            self.frames[k].embedding.write_back(atoms, crystal)
        self._note()

    def _note(self) -> None:
        """Put the losses into the caller's atoms and remember how we leave them."""
        losses = dict(zip(self.frames, self._losses(), strict=True))
        for k, target in enumerate(self.targets):
            try:
                atoms, _ = unwrap(target, self.fix_cell)
            except CrystalError:
                continue
            atoms.info.pop("asx_loss", None)
            if k in losses:
                atoms.info["asx_loss"] = losses[k]
            self._seen[k] = _Seen(
                atoms.numbers.copy(), atoms.cell.array.copy(), atoms.positions.copy()
            )

    def reports(self) -> list[tuple[Status, str]]:
        """Status and reason of every member."""
        known = dict(zip(self.frames, self._reports(), strict=True))
        return [
            known.get(k, (Status.FAILED, self.failures.get(k, "")))
            for k in range(len(self.targets))
        ]

    def losses(self) -> np.ndarray:
        """Loss of every member, NaN where it failed."""
        losses = np.full(len(self.targets), np.nan)
        losses[list(self.frames)] = self._losses()
        return losses

    # -- Optimizable ----------------------------------------------------------------------------

    def ndofs(self) -> int:
        """Number of free variables of all crystals."""
        return self.minimizer.batch.n_variables

    def get_x(self) -> np.ndarray:
        """Free variables, shape (V,): Å, radians, fractions."""
        return self.minimizer.variables.cpu().numpy().copy()

    def set_x(self, x: np.ndarray) -> None:
        """Set the free variables, shape (V,), and the atoms with them."""
        whole = self.minimizer.batch
        for k, values in zip(self.frames, whole.split(torch.as_tensor(x)), strict=True):
            frame = self.frames[k]
            crystal = frame.crystal.with_free_variables(values)
            self.frames[k] = replace(frame, crystal=crystal)
        fmax = self.minimizer.fmax
        self._bind()
        self._write()
        self.minimizer.resume(fmax)

    def get_value(self) -> float:
        """Mean loss of the crystals that have one."""
        return float(torch.tensor(self._losses(), dtype=torch.float64).nanmean())

    def get_gradient(self) -> np.ndarray:
        """Gradient of the losses with respect to the free variables, shape (V,)."""
        return self.minimizer.gradient.cpu().numpy().copy()

    def gradient_norm(self, gradient: np.ndarray) -> float:
        """Largest generalised gradient of any crystal."""
        minimizer = self.minimizer
        tensor = torch.as_tensor(gradient).to(minimizer.variables)
        return float(generalized_gradient(minimizer.batch, minimizer.variables, tensor).max())

    def converged(self, gradient: np.ndarray, fmax: float) -> bool:
        """Every crystal below `fmax`, none failed, none on a plateau without neighbours."""
        if self.failures or self.gradient_norm(gradient) >= fmax:
            return False
        return all(status is not Status.FAILED for status, _ in self._reports()) and not (
            self.minimizer.isolated.any()
        )

    def iterimages(self) -> Iterator[Atoms]:
        """Frames of one step of a trajectory."""
        for target in self.targets:
            yield from target.iterimages()
