"""Radial basis, its table, and the solid harmonics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import orthonormal_functions, radial_integrals
from scipy.special import sph_harm_y

from asexlatent.descriptor.harmonics import gradient_matrices, solid_harmonics
from asexlatent.descriptor.radial import chebyshev_table, radial_basis


@pytest.mark.parametrize("nmax", [1, 2, 5, 8, 12])
def test_radial_functions_are_orthonormal(nmax):
    rcut = 2.7
    points, weights = np.polynomial.legendre.leggauss(80)
    q = 0.5 * rcut * (points + 1)
    basis = radial_basis(nmax, rcut, q)
    overlap = (basis * 0.5 * rcut * weights * q**2) @ basis.T
    np.testing.assert_allclose(overlap, np.eye(nmax), atol=1e-12)


def test_radial_functions_equal_their_definition():
    q = np.linspace(0, 3.1, 7)
    g = orthonormal_functions(8, 3.1)
    expected = [[g(n, value) for value in q] for n in range(8)]
    np.testing.assert_allclose(radial_basis(8, 3.1, q), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("nmax", "lmax", "rcut", "alpha"), [(2, 2, 2.1, 1.5), (3, 3, 6.0, 4.0), (2, 2, 2.1, 1e-3)]
)
def test_series_reproduces_the_integrals(nmax, lmax, rcut, alpha):
    r = rcut * np.array([0.02, 0.37, 0.71, 0.98])
    table = chebyshev_table(nmax, lmax, rcut, alpha, "polynomial", 1e-13)
    u = (r / rcut) ** 2
    series = np.polynomial.chebyshev.chebval(2 * u - 1, np.moveaxis(table, -1, 0))
    degrees = np.arange(lmax + 1)[:, None]
    value = series * (r / rcut) ** degrees
    expected = radial_integrals(nmax, lmax, rcut, alpha, r) * (1 - u) ** 3
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_a_hopelessly_sharp_density_is_refused():
    with pytest.raises(ValueError, match="too sharp for rcut"):
        chebyshev_table(2, 2, 10.0, 1000.0, "cosine", 1e-13)


def test_harmonics_are_those_of_scipy():
    lmax = 10
    vectors = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    vectors[:, 0] = torch.tensor([0.0, 0.0, -1.5])
    harmonics = solid_harmonics(vectors, lmax).numpy()
    x, y, z = vectors.numpy()
    r = np.sqrt(x * x + y * y + z * z)
    theta, phi = np.arccos(z / r), np.arctan2(y, x)
    for degree in range(lmax + 1):
        for m in range(-degree, degree + 1):
            # without the Condon-Shortley phase that SciPy includes
            value = (-1) ** m * sph_harm_y(degree, abs(m), theta, phi) * r**degree
            part = value.real if m >= 0 else value.imag
            expected = part * (np.sqrt(2) if m else 1)
            row = harmonics[degree * degree + degree + m]
            np.testing.assert_allclose(row, expected, atol=1e-12 * (1 + r**degree).max())


def test_harmonics_at_the_origin_are_finite():
    vectors = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    harmonics = solid_harmonics(vectors, 6)
    assert torch.count_nonzero(harmonics) == 1
    (gradient,) = torch.autograd.grad(harmonics.sum(), vectors)
    assert torch.isfinite(gradient).all()


def test_gradients_of_harmonics_are_harmonics():
    lmax = 9
    vectors = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    derivative = torch.func.jacfwd(lambda v: solid_harmonics(v, lmax).sum(1))(vectors)
    matrices = torch.tensor(gradient_matrices(lmax))
    expected = torch.einsum("xab,bp->axp", matrices, solid_harmonics(vectors, lmax - 1))
    torch.testing.assert_close(derivative, expected, rtol=1e-11, atol=1e-9)
