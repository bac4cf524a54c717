"""The part of a Hessian that Gauss-Newton leaves out, learned from the steps taken.

At a minimum with residuals that do not vanish (most crystals cannot have the target's spectra
exactly) Gauss-Newton steps converge linearly, and slowly. The missing part, the sum of r_i times
the second derivatives of r_i, is built up as a matrix S by the structured secant update of
J. E. Dennis, D. M. Gay and R. E. Welsch (NL2SOL, ACM Trans. Math. Softw. 7, 348, 1981).
"""

from __future__ import annotations

import torch
from torch import Tensor

_DOWNHILL = 1e-6  # smallest cosine between a step and the change of the gradient


def updated(
    extra: Tensor, curvature: Tensor, step: Tensor, change: Tensor, moved: Tensor
) -> Tensor:
    """S after a step.

    Parameters
    ----------
    extra : Tensor, shape (B, n, n)
        S so far, symmetric.
    curvature : Tensor, shape (B, n, n)
        Gauss-Newton matrix G at the new point.
    step, change : Tensor, shape (B, n)
        s, from the old point to the new one, and y, what the gradient has changed by.
    moved : Tensor of bool, shape (B,)
        Crystals that took a step.

    Returns
    -------
    Tensor, shape (B, n, n)
        (G + S) s = y for crystals that moved along a direction of positive curvature, by the
        smallest change in the metric of the update, after S was scaled down where it is too large
        for s (the residuals have become smaller); the others keep theirs.
    """
    tiny = torch.finfo(step.dtype).tiny
    wanted = change - _times(curvature, step)
    have = _times(extra, step)
    size = (step * wanted).sum(1).abs() / (step * have).sum(1).abs().clamp(min=tiny)
    size = size.clamp(max=1.0)[:, None]
    missing = wanted - size * have
    along = (change * step).sum(1)
    good = moved & (along > _DOWNHILL * step.norm(dim=1) * change.norm(dim=1))
    along = torch.where(good, along, 1.0)[:, None]
    # with b = y / y.s the update is  m b' + b m' - (m.s) b b'
    scaled = change / along
    half = missing - 0.5 * (missing * step).sum(1, keepdim=True) * scaled
    outer = half[:, :, None] * scaled[:, None, :]
    new = size[:, :, None] * extra + outer + outer.transpose(1, 2)
    return torch.where(good[:, None, None], new, extra)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.bmm(matrix, vector[:, :, None])[:, :, 0]
