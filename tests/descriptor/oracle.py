"""The power spectrum straight from its definition: SciPy quadrature and complex harmonics.

Shares nothing with the package. Only the inverse square root of the overlap matrix is taken in
many digits, because float64 cannot do it for many radial functions.
"""

from __future__ import annotations

import mpmath
import numpy as np
from scipy.integrate import quad
from scipy.special import sph_harm_y, spherical_in


def orthonormal_functions(nmax: int, rcut: float):
    """g_n(q) as functions of one number, by the formulas of the design."""
    mpmath.mp.dps = 80
    rc = mpmath.mpf(rcut)
    a_values = range(1, nmax + 1)
    k = [(2 * a + 5) * (2 * a + 6) * (2 * a + 7) for a in a_values]
    overlap = mpmath.matrix(nmax, nmax)
    for i, a in enumerate(a_values):
        for j, b in enumerate(a_values):
            below = (5 + a + b) * (6 + a + b) * (7 + a + b)
            overlap[i, j] = mpmath.sqrt(k[i] * k[j]) / below
    values, vectors = mpmath.eigsy(overlap)
    weights = vectors * mpmath.diag([value**-0.5 for value in values]) * vectors.T
    # symmetric, and its square is the inverse of the overlap: this is S^(-1/2)
    assert mpmath.mnorm(weights * overlap * weights - mpmath.eye(nmax)) < 1e-40
    norms = [mpmath.sqrt(2 * rc ** (2 * a + 7) / k[i]) for i, a in enumerate(a_values)]

    def g(n: int, q: float) -> float:
        terms = (weights[n, i] * (rc - q) ** (a + 2) / norms[i] for i, a in enumerate(a_values))
        return float(mpmath.fsum(terms))

    return g


def radial_integrals(nmax, lmax, rcut, alpha, distances):
    """(nmax, lmax + 1, len(distances)): 4 pi exp(-alpha r^2) I_nl(r)."""
    g = orthonormal_functions(nmax, rcut)
    result = np.zeros((nmax, lmax + 1, len(distances)))
    for j, r in enumerate(distances):
        for degree in range(lmax + 1):
            for n in range(nmax):

                def integrand(q, n=n, degree=degree, r=r):
                    bessel = spherical_in(degree, 2 * alpha * r * q)
                    return g(n, q) * np.exp(-alpha * (q * q + r * r)) * bessel * q * q

                value, _ = quad(integrand, 0, rcut, epsabs=1e-13, epsrel=1e-12, limit=200)
                result[n, degree, j] = 4 * np.pi * value
    return result


def power_spectrum(vectors, weights, nmax, lmax, rcut, alpha):
    """One centre. vectors (P, 3), weights (P,); components n >= n', l fastest."""
    x, y, z = np.asarray(vectors).T
    r = np.sqrt(x * x + y * y + z * z)
    theta = np.arccos(np.divide(z, r, out=np.ones_like(r), where=r > 0).clip(-1, 1))
    phi = np.arctan2(y, x)
    radial = radial_integrals(nmax, lmax, rcut, alpha, r)
    cutoff = 0.5 * (np.cos(np.pi * r / rcut) + 1) * (r < rcut)
    spectrum = []
    for n in range(nmax):
        for other in range(n + 1):
            for degree in range(lmax + 1):
                total = 0.0
                for m in range(-degree, degree + 1):
                    factor = weights * cutoff * sph_harm_y(degree, m, theta, phi)
                    first = (factor * radial[n, degree]).sum()
                    second = (factor * radial[other, degree]).sum()
                    total += (first * np.conj(second)).real
                spectrum.append(2 * np.sqrt(2) * np.pi / np.sqrt(2 * degree + 1) * total)
    return np.array(spectrum)
