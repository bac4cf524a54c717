"""How well a model gives back crystals that it encodes, by crystal system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asexlatent.latent.columns import N_CELL, FreeVariableMap
from asexlatent.latent.conditions import Condition
from asexlatent.latent.dataset import Dataset
from asexlatent.latent.features import SYSTEMS
from asexlatent.latent.model import LatentModel
from asexlatent.symmetry import cell_from_parameters, lattice_variables


@dataclass(frozen=True)
class Reconstruction:
    """Errors of the crystals of one crystal system; medians over crystals.

    Attributes
    ----------
    rows : number of crystals.
    length : mean relative error of a, b, c.
    angle : mean error of the free angles, degrees; None where none is free.
    coordinate : root mean square displacement of the sites at the true cell, Å; None where no
        coordinate is free.
    components : share of the columns whose mixture component is right.
    """

    rows: int
    length: float
    angle: float | None
    coordinate: float | None
    components: float


@torch.no_grad()
def reconstruction(model: LatentModel, data: Dataset) -> dict[str, Reconstruction]:
    """Encode, decode at the mean of q(z | x), compare.

    Parameters
    ----------
    model : LatentModel
    data : Dataset
        Rows within the vocabulary of the model.

    Returns
    -------
    dict
        Crystal system ("triclinic", ..., and "all") to its errors; systems without rows absent.
        Trigonal crystals count as hexagonal.
    """
    rows = model.rows(data)
    mu, _ = model.network.encode(rows)
    if model.is_conditional:
        logits, residuals = model.network.decode(mu, model.network.embed(rows.condition))
    else:
        logits, residuals, *_ = model.network.decode(mu)
    found = model.transform.values(logits.double(), residuals.double(), "hard")
    right = ((logits.argmax(2) == rows.component) & rows.mask).sum(1) / rows.mask.sum(1)
    maps = FreeVariableMap.of(data.conditions)
    cells = [maps.cell_parameters(c).numpy() for c in (torch.as_tensor(data.values), found)]
    lengths = np.abs(cells[1][:, :3] / cells[0][:, :3] - 1).mean(axis=1)
    angles = np.degrees(np.abs(cells[1][:, 3:] - cells[0][:, 3:]))
    angles = np.array([_mean(row[use]) for row, use in zip(angles, data.mask[:, 3:6], strict=True)])
    moved = np.array(
        [
            _displacement(condition, cell, difference)
            for condition, cell, difference in zip(
                data.conditions, cells[0], found.numpy() - data.values, strict=True
            )
        ]
    )
    system = np.array([lattice_variables(c.space_group).system for c in data.conditions])
    made = {}
    for name in (*SYSTEMS, "all"):
        use = np.ones(len(data), bool) if name == "all" else system == name
        if use.any():
            made[name] = Reconstruction(
                int(use.sum()),
                float(np.median(lengths[use])),
                _median(angles[use]),
                _median(moved[use]),
                float(right.numpy()[use].mean()),
            )
    return made


def _displacement(condition: Condition, cell: NDArray, difference: NDArray) -> float:
    """Root mean square displacement (Å) of the sites with free coordinates; NaN without any."""
    matrix, squares = cell_from_parameters(cell), []
    for slot, position in enumerate(condition.positions):
        if position.dof:
            free = difference[N_CELL + 3 * slot + position.variables]
            vector = position.linear[0] @ (free - np.rint(free)) @ matrix
            squares.append(float(vector @ vector))
    return float(np.sqrt(np.mean(squares))) if squares else float("nan")


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _median(values: NDArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
