"""The radial part of the neighbour density, as Chebyshev series in the squared distance.

With ``u = (r / rcut)**2`` the coefficient of a neighbour at ``v`` is ``h_nl(u) R_lm(v / rcut)``,
where ``R_lm`` is a solid harmonic (a polynomial, `asexlatent.descriptor.harmonics`) and

    h_nl(u) = 4 pi fc(r) exp(-alpha r^2) I_nl(r) / (r / rcut)^l
    I_nl(r) = integral_0^rcut  g_n(q) exp(-alpha q^2) i_l(2 alpha r q) q^2 dq

(``i_l`` the modified spherical Bessel function). Both ``i_l(x) / x^l`` and the cosine cutoff are
even entire functions, so ``h_nl`` is analytic in ``u`` on the whole of [0, 1]: a Chebyshev series
converges geometrically, and neither ``r = 0`` nor a square root ever appears when the descriptor is
evaluated.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct
from scipy.special import ive

CUTOFFS = ("cosine", "polynomial")
_SHARPEST = 1e4  # alpha rcut^2


@lru_cache(maxsize=32)
def orthonormal_weights(nmax: int) -> tuple[tuple[object, ...], ...]:
    """W = S^(-1/2), which makes the functions phi_a orthonormal, in extended precision.

    S_ab = sqrt(k_a k_b) / ((5 + a + b)(6 + a + b)(7 + a + b)), k_a = (2a + 5)(2a + 6)(2a + 7), a =
    1 .. nmax. Its condition number grows about a hundredfold with each function (1e13 at nmax 8),
    so that float64 is not enough; the number of digits used here grows with ``nmax``.

    Returns
    -------
    tuple of tuples of mpmath.mpf
        (nmax, nmax), symmetric.
    """
    import mpmath

    if nmax < 1:
        raise ValueError(f"nmax is {nmax}; it must be 1 or more")
    with mpmath.workdps(40 + 4 * nmax):
        k = {a: mpmath.mpf((2 * a + 5) * (2 * a + 6) * (2 * a + 7)) for a in range(1, nmax + 1)}
        overlap = mpmath.matrix(nmax, nmax)
        for a in k:
            for b in k:
                total = a + b
                below = (5 + total) * (6 + total) * (7 + total)
                overlap[a - 1, b - 1] = mpmath.sqrt(k[a] * k[b]) / below
        values, vectors = mpmath.eigsy(overlap)
        scaled = vectors * mpmath.diag([1 / mpmath.sqrt(value) for value in values])
        weights = scaled * vectors.T
        return tuple(tuple(weights[i, j] for j in range(nmax)) for i in range(nmax))


def radial_basis(nmax: int, rcut: float, q: np.ndarray) -> np.ndarray:
    """The orthonormal functions g_n(q) = sum_a W_na phi_a(q) on [0, rcut].

    phi_a(q) = (rcut - q)^(a + 2) / sqrt(2 rcut^(2a + 7) / k_a). Summed in extended precision,
    because the terms cancel; orthonormal under the weight q^2 dq.

    Parameters
    ----------
    nmax
        Number of functions.
    rcut
        Cutoff in Å.
    q
        (Q,) distances in Å.

    Returns
    -------
    numpy.ndarray
        (nmax, Q) in Å^(-3/2).
    """
    import mpmath

    weights = orthonormal_weights(nmax)
    with mpmath.workdps(40 + 4 * nmax):
        k = [mpmath.mpf((2 * a + 5) * (2 * a + 6) * (2 * a + 7)) for a in range(1, nmax + 1)]
        norms = [mpmath.sqrt(value / 2) for value in k]
        # Horner's form of sum_a W_na norm_a t^(a + 2), t = 1 - q / rcut
        terms = [
            [w * norm for w, norm in zip(row, norms, strict=True)][::-1] + [0] * 3
            for row in weights
        ]
        cutoff = mpmath.mpf(float(rcut))
        lengths = [1 - mpmath.mpf(float(value)) / cutoff for value in np.asarray(q).ravel()]
        table = [[float(mpmath.polyval(term, t)) for t in lengths] for term in terms]
    return np.array(table).reshape(nmax, -1) * float(rcut) ** -1.5


def cutoff_function(name: str, u: np.ndarray) -> np.ndarray:
    """Cutoff fc at u = (r / rcut)^2: cosine (1 + cos(pi r / rcut)) / 2, polynomial (1 - u)^3."""
    if name == "cosine":
        return 0.5 * (1.0 + np.cos(np.pi * np.sqrt(u)))
    if name == "polynomial":
        return (1.0 - u) ** 3
    raise ValueError(f"unknown cutoff {name!r}; choose one of {', '.join(CUTOFFS)}")


def radial_values(
    nmax: int, lmax: int, rcut: float, alpha: float, cutoff: str, u: np.ndarray
) -> np.ndarray:
    """h_nl(u) by Gauss-Legendre quadrature, to rounding.

    Parameters
    ----------
    nmax, lmax, rcut, alpha, cutoff
        As in `asexlatent.descriptor.PowerSpectrum`.
    u
        (U,) values of (r / rcut)^2 in (0, 1].

    Returns
    -------
    numpy.ndarray
        (nmax, lmax + 1, U).
    """
    # enough for a polynomial of degree nmax + 2 times a Gaussian of width 1 / sqrt(2 alpha)
    q, basis = _quadrature(nmax, rcut, 48 + 2 * nmax + int(8 * np.sqrt(alpha) * rcut))
    r = rcut * np.sqrt(u)
    x = 2.0 * alpha * np.outer(r, q)
    # exp(-alpha r^2 - alpha q^2) i_l(x) = exp(-alpha (r - q)^2) exp(-x) i_l(x): nothing overflows
    gauss = np.exp(-alpha * (r[:, None] - q) ** 2) * np.sqrt(0.5 * np.pi / x)
    values = np.empty((nmax, lmax + 1, len(u)))
    for degree in range(lmax + 1):
        kernel = gauss * ive(degree + 0.5, x)
        values[:, degree] = (basis @ kernel.T) / u ** (0.5 * degree)
    return 4.0 * np.pi * cutoff_function(cutoff, u) * values


@lru_cache(maxsize=8)
def _quadrature(nmax: int, rcut: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes q (Q,) on [0, rcut], and g_n(q) q^2 times their weights (nmax, Q)."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    q = 0.5 * rcut * (points + 1.0)
    return q, radial_basis(nmax, rcut, q) * (0.5 * rcut * weights * q**2)


@lru_cache(maxsize=32)
def chebyshev_table(
    nmax: int, lmax: int, rcut: float, alpha: float, cutoff: str, tolerance: float
) -> np.ndarray:
    """Chebyshev coefficients of all h_nl, of the lowest degree that is accurate enough.

    h_nl(u) = sum_k table[n, l, k] T_k(2 u - 1). The number of samples is doubled until the end of
    the series vanishes; the series is then cut where everything beyond is below ``tolerance`` times
    the largest value of that h_nl.

    Returns
    -------
    numpy.ndarray
        (nmax, lmax + 1, K) float64, read-only.

    Raises
    ------
    ValueError
        When alpha rcut^2 exceeds 10 000: Gaussians a hundred times narrower than the cutoff.
    """
    if alpha * rcut**2 > _SHARPEST:
        raise ValueError(
            f"alpha = {alpha:g} 1/Å^2 is too sharp for rcut = {rcut:g} Å (alpha rcut^2 may be "
            f"{_SHARPEST:g} at most); lower one of them"
        )
    samples, smooth = 32, False
    while not smooth:
        samples *= 2
        u = 0.5 * (1.0 + np.cos(np.pi * (np.arange(samples) + 0.5) / samples))
        values = radial_values(nmax, lmax, rcut, alpha, cutoff, u)
        series = dct(values, type=2, axis=-1) / samples
        series[..., 0] *= 0.5
        sizes = np.abs(series) / np.abs(values).max(axis=-1, keepdims=True)
        tail = np.cumsum(sizes[..., ::-1], axis=-1)[..., ::-1].max(axis=(0, 1))
        # the last quarter holds rounding only
        smooth = tail[3 * samples // 4] < max(tolerance, 1e-15 * samples)
    degree = int(np.argmax(tail < max(tolerance, 2 * tail[3 * samples // 4])))
    table = np.ascontiguousarray(series[..., : max(degree, 2)])
    table.setflags(write=False)
    return table
