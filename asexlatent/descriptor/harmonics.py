"""Real solid harmonics and their gradients, as recurrences in the vector itself.

The solid harmonic ``R_lm(v) = r**l Y_lm(v / r)`` is a homogeneous polynomial of the components of
``v``. Nothing is divided by ``r`` and no angle is formed, so bonds along z and coincident atoms
need no special case.

Conventions, owned by this module:

* ``Y_lm`` are the *real* spherical harmonics, orthonormal on the unit sphere, without the
  Condon-Shortley phase: ``Y_1,-1 ~ y``, ``Y_1,0 ~ z``, ``Y_1,1 ~ x``.
* ``(l, m)`` stands at position ``l * l + l + m`` (``m = -l .. l``).

The power spectrum sums over ``m``, so it is the same for real and complex harmonics.

The recurrences run on ``Q_lm = R_lm / scale_lm``, scaled so that most factors are 1:

    Q_l,±l = (x Q_l-1,±(l-1) ∓ y Q_l-1,∓(l-1))
    Q_l,m  = z Q_l-1,m - below_lm r^2 Q_l-2,m,   below_lm = ((l-1)^2 - m^2) / ((2l-1)(2l-3))
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
        ((lmax + 1)**2, P), ``r**l Y_lm`` at row ``l * l + l + m``, in (unit of ``vectors``)**l.
    """
    scales = torch.tensor(harmonic_scales(lmax)[:, None], dtype=vectors.dtype)
    factors = [torch.tensor(f, dtype=vectors.dtype) for f in recurrence_factors(lmax)]
    factors = [factor.to(vectors.device) for factor in factors]
    square = (vectors * vectors).sum(0)
    return scales.to(vectors.device) * unscaled_harmonics(vectors, square, lmax, factors)


def unscaled_harmonics(vectors: Tensor, square: Tensor, lmax: int, factors: list[Tensor]) -> Tensor:
    """Q_lm = R_lm / scale_lm, ((lmax + 1)**2, P), for vectors (3, P) and their squares (P,)."""
    x, y, z = vectors.unbind(0)
    blocks = [torch.ones_like(vectors[:1])]
    if lmax > 0:
        blocks.append(torch.stack((y, z, x)))
    for degree in range(2, lmax + 1):
        lower, lowest = blocks[-1], blocks[-2]
        inner = z * lower
        middle = inner[1:-1] - (factors[degree - 2] * square) * lowest
        sine = x * lower[:1] + y * lower[-1:]
        cosine = x * lower[-1:] - y * lower[:1]
        blocks.append(torch.cat((sine, inner[:1], middle, inner[-1:], cosine)))
    return torch.cat(blocks)


def write_unscaled_harmonics(
    out: Tensor, vectors: Tensor, square: Tensor, lmax: int, factors: list[Tensor], spare: Tensor
) -> None:
    """As `unscaled_harmonics`, written into ``out`` without allocating; not for autograd.

    ``spare`` is scratch of the shape of ``out``.
    """
    x, y, z = vectors
    out[0].fill_(1.0)
    if lmax > 0:
        out[1], out[2], out[3] = y, z, x
    for degree in range(2, lmax + 1):
        lower = out[(degree - 1) ** 2 : degree**2]
        lowest = out[(degree - 2) ** 2 : (degree - 1) ** 2]
        block = out[degree**2 : (degree + 1) ** 2]
        torch.mul(lower, z, out=block[1:-1])
        scaled = torch.mul(lowest, factors[degree - 2], out=spare[: len(lowest)])
        block[2:-2].addcmul_(scaled, square, value=-1.0)
        torch.mul(x, lower[0], out=block[0]).addcmul_(y, lower[-1])
        torch.mul(x, lower[-1], out=block[-1]).addcmul_(y, lower[0], value=-1.0)


@lru_cache(maxsize=16)
def recurrence_factors(lmax: int) -> tuple[np.ndarray, ...]:
    """The columns ``below_lm`` (2 l - 3, 1) for l = 2 .. lmax, m = -(l - 2) .. l - 2."""
    columns = []
    for degree in range(2, lmax + 1):
        m = np.arange(-(degree - 2), degree - 1)
        below = ((degree - 1) ** 2 - m**2) / ((2 * degree - 1) * (2 * degree - 3))
        columns.append(below[:, None])
    return tuple(columns)


@lru_cache(maxsize=16)
def harmonic_scales(lmax: int) -> np.ndarray:
    """((lmax + 1)**2,) factors with R_lm = scale_lm Q_lm; read-only."""
    if lmax < 0:
        raise ValueError(f"lmax is {lmax}; it must be 0 or more")
    scales = np.zeros((lmax + 1) ** 2)
    scales[0] = 0.5 / np.sqrt(np.pi)
    scales[1:4] = np.sqrt(0.75 / np.pi)
    for degree in range(2, lmax + 1):
        middle, below = degree * degree + degree, degree * degree - degree
        m = np.arange(-(degree - 1), degree)
        up = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
        scales[middle + m] = up * scales[below + m]
        edge = np.sqrt((2 * degree + 1) / (2 * degree)) * scales[below + degree - 1]
        scales[middle - degree] = scales[middle + degree] = edge
    scales.setflags(write=False)
    return scales


@lru_cache(maxsize=16)
def gradient_matrices(lmax: int) -> np.ndarray:
    """Matrices that turn the gradient of solid harmonics into solid harmonics one degree lower.

    The gradient of a harmonic polynomial is harmonic, so that
    ``d R_lm / d v_k = sum_m' D[k, lm, l-1 m'] R_l-1,m'``.

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

    Let Z_m be the complex solid harmonic for m >= 0: R_l,m = s Re Z_m and R_l,-m = s Im Z_m with
    s = sqrt 2 (s = 1 for m = 0). Then, on the right at degree l - 1,

        (d_x - i d_y) Z_m = lower Z_m-1,  (d_x + i d_y) Z_m = -higher Z_m+1,  d_z Z_m = along Z_m.
    """
    ratio = (2 * degree + 1) / (2 * degree - 1)
    along = np.sqrt(ratio * (degree**2 - m**2))
    lower = np.sqrt(ratio * (degree + m) * (degree + m - 1))
    higher = np.sqrt(ratio * (degree - m) * (degree - m - 1))
    row = degree * degree + degree
    column = (degree - 1) ** 2 + degree - 1  # position of (l - 1, 0)

    def put(axis: int, target: int, other: int, value: float) -> None:
        if abs(other) < degree:
            matrices[axis, row + target, column + other] = value

    put(2, m, m, along)
    if m == 0:
        put(0, 0, 1, -higher / np.sqrt(2.0))
        put(1, 0, -1, -higher / np.sqrt(2.0))
        return
    put(2, -m, -m, along)
    low = 0.5 * lower * (np.sqrt(2.0) if m == 1 else 1.0)  # R_l-1,0 carries no sqrt 2
    high = 0.5 * higher
    put(0, m, m - 1, low)
    put(0, m, m + 1, -high)
    put(1, m, -(m + 1), -high)
    put(0, -m, -(m + 1), -high)
    put(1, -m, m + 1, high)
    put(1, -m, m - 1, low)
    if m > 1:  # Im Z_0 = 0
        put(1, m, -(m - 1), -low)
        put(0, -m, -(m - 1), low)
