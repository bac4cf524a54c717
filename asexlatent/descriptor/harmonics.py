"""Real solid harmonics and their gradients, as recurrences in the vector itself.

The solid harmonic ``R_lm(v) = r**l Y_lm(v / r)`` is a homogeneous polynomial of the components of
``v``. Nothing is divided by ``r`` and no angle is formed, so bonds along z and coincident atoms
need no special case.

Conventions, owned by this module:

* ``Y_lm`` are the *real* spherical harmonics, orthonormal on the unit sphere, without the
  Condon-Shortley
  phase: ``Y_1,-1 ~ y``, ``Y_1,0 ~ z``, ``Y_1,1 ~ x``.
* ``(l, m)`` stands at position ``l * l + l + m`` (``m = -l .. l``).

The power spectrum sums over ``m``, so it is the same for real and complex harmonics.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def solid_harmonics(vectors: Tensor, lmax: int) -> Tensor:
    """Real solid harmonics of many vectors.

    Parameters
    ----------
    vectors
        (3, P): the components x, y, z in rows (contiguous rows are what makes this fast).
    lmax
        Highest degree, 0 or more.

    Returns
    -------
    Tensor
        ((lmax + 1)**2, P), ``r**l Y_lm`` at row ``l * l + l + m``. Units: (unit of ``vectors``)**l.
    """
    return torch.cat(harmonic_blocks(vectors, lmax))


def harmonic_blocks(vectors: Tensor, lmax: int) -> list[Tensor]:
    """As `solid_harmonics`, one (2 l + 1, P) block for each ``l``."""
    if lmax < 0:
        raise ValueError(f"lmax is {lmax}; it must be 0 or more")
    x, y, z = vectors.unbind(0)
    blocks = [torch.full_like(vectors[:1], 0.5 / np.sqrt(np.pi))]
    if lmax == 0:
        return blocks
    blocks.append(np.sqrt(0.75 / np.pi) * vectors[[1, 2, 0]])
    square = (vectors * vectors).sum(0)
    factors = _recurrence(lmax, vectors.dtype, vectors.device)
    for degree in range(2, lmax + 1):
        lower, lowest = blocks[-1], blocks[-2]
        up, down = factors[degree]
        inner = (up * z) * lower
        if degree > 1:
            inner = torch.cat((inner[:1], inner[1:-1] - (down * square) * lowest, inner[-1:]))
        edge = np.sqrt((2 * degree + 1) / (2 * degree))
        sine, cosine = edge * lower[:1], edge * lower[-1:]
        blocks.append(torch.cat((x * sine + y * cosine, inner, x * cosine - y * sine)))
    return blocks


@lru_cache(maxsize=64)
def _recurrence(
    lmax: int, dtype: torch.dtype, device: torch.device
) -> dict[int, tuple[Tensor, Tensor]]:
    """Factors of R_lm = up (z R_l-1,m) - down (r^2 R_l-2,m), as columns for the blocks."""
    table = {}
    for degree in range(2, lmax + 1):
        m = np.arange(-(degree - 1), degree)
        up = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
        below = degree - 1
        down = up * np.sqrt((below**2 - m**2) / (4 * below**2 - 1))
        columns = [
            torch.as_tensor(a[:, None], dtype=dtype, device=device) for a in (up, down[1:-1])
        ]
        table[degree] = (columns[0], columns[1])
    return table


@lru_cache(maxsize=16)
def gradient_matrices(lmax: int) -> np.ndarray:
    """Matrices that turn the gradient of solid harmonics into solid harmonics one degree lower.

    The gradient of a harmonic polynomial is harmonic, so ``d R_lm / d v_k = sum_m' D[k, lm, l-1 m']
    R_l-1,m'``.

    Returns
    -------
    numpy.ndarray
        (3, (lmax + 1)**2, lmax**2) float64, read-only; k = x, y, z. (For ``lmax = 0`` the last axis
        is empty.)
    """
    matrices = np.zeros((3, (lmax + 1) ** 2, lmax**2))
    for degree in range(1, lmax + 1):
        for m in range(degree + 1):
            _gradient_rows(matrices, degree, m)
    matrices.setflags(write=False)
    return matrices


def _gradient_rows(matrices: np.ndarray, degree: int, m: int) -> None:
    """Fill the rows of (l, m) and (l, -m).

    With Z_m the complex solid harmonic for m >= 0 (R_l,m = s Re Z_m, R_l,-m = s Im Z_m, s = sqrt 2
    for m > 0, 1 for 0): (d_x - i d_y) Z_m = lower Z_m-1,  (d_x + i d_y) Z_m = -raise Z_m+1,  d_z
    Z_m = along Z_m, all at degree l - 1.
    """
    ratio = (2 * degree + 1) / (2 * degree - 1)
    along = np.sqrt(ratio * (degree**2 - m**2))
    lower = np.sqrt(ratio * (degree + m) * (degree + m - 1))
    higher = np.sqrt(ratio * (degree - m) * (degree - m - 1))
    row = degree * degree + degree
    column = (degree - 1) ** 2 + degree - 1  # position of (l - 1, 0)
    scale = np.sqrt(2.0) if m else 1.0

    def put(axis: int, target: int, other: int, value: float) -> None:
        if value and abs(other) < degree:
            matrices[axis, row + target, column + other] = value

    put(2, m, m, along)
    if m:
        put(2, -m, -m, along)
    if m == 0:
        put(0, 0, 1, -higher / np.sqrt(2.0))
        put(1, 0, -1, -higher / np.sqrt(2.0))
        return
    ratio_down = scale if m == 1 else 1.0  # R_l,0 carries no sqrt 2
    half_low, half_high = 0.5 * lower * ratio_down, 0.5 * higher
    put(0, m, m - 1, half_low)
    put(0, m, m + 1, -half_high)
    put(1, m, -(m + 1), -half_high)
    put(0, -m, -(m + 1), -half_high)
    put(1, -m, m + 1, half_high)
    put(1, -m, m - 1, half_low)
    if m > 1:  # Im Z_0 = 0
        put(1, m, -(m - 1), -half_low)
        put(0, -m, -(m - 1), half_low)
