"""The power spectrum against an oracle made of SciPy, and against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descriptor_cases import graphite, random_pairs, spectra_of
from oracle import power_spectrum

from asexlatent.descriptor import PowerSpectrum

ANCHOR = """16.6991 0 2.1774 1.7963 0.0970 -1.9715 0 -0.6192 -0.6351 -0.0398
            0.2328 0 0.1761 0.2246 0.0163"""


def test_graphite_has_the_published_spectrum():
    spectra = spectra_of(graphite(), PowerSpectrum())
    expected = np.array(ANCHOR.split(), dtype=float)
    np.testing.assert_allclose(spectra, np.tile(expected, (4, 1)), atol=5.1e-5)


SETTINGS = [(2, 4, 2.1, 1.5), (1, 0, 3.0, 0.3), (4, 2, 2.1, 0.02), (3, 6, 2.6, 6.0)]


@pytest.mark.parametrize(("nmax", "lmax", "rcut", "alpha"), SETTINGS)
def test_equals_the_definition(nmax, lmax, rcut, alpha):
    model = PowerSpectrum(nmax, lmax, rcut, alpha)
    vectors, _, numbers, _ = random_pairs(5, n_pairs=4)
    vectors = vectors * (rcut / 2.2)
    vectors[0] = torch.tensor([0.0, 0.0, 0.6 * rcut])  # a bond along z, where angles fail
    vectors[1] = torch.tensor([0.0, 0.0, -0.4 * rcut])
    vectors[2] = 1e-3 * vectors[2]  # and one nearly on top of the centre
    spectrum = model(vectors, torch.zeros(4, dtype=torch.long), numbers, 1)[0].numpy()
    expected = power_spectrum(vectors.numpy(), numbers.numpy(), nmax, lmax, rcut, alpha)
    np.testing.assert_allclose(spectrum, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.slow
def test_equals_the_definition_for_eight_functions_of_degree_eight():
    test_equals_the_definition(8, 8, 2.5, 1.5)
    test_equals_the_definition(8, 8, 5.0, 2.0)


def test_float32_agrees_with_float64():
    vectors, centers, numbers, n_centers = random_pairs(1, n_pairs=200)
    for settings in ({}, {"nmax": 8, "lmax": 8}):
        exact = PowerSpectrum(**settings)(vectors, centers, numbers, n_centers)
        single = PowerSpectrum(**settings, dtype=torch.float32)
        spectra = single(vectors.float(), centers, numbers, n_centers)
        assert spectra.dtype == torch.float32
        assert (spectra - exact).abs().max() < 3e-6 * exact.abs().max()
        moved = PowerSpectrum(**settings)
        moved(vectors, centers, numbers, n_centers)
        moved = moved.to(torch.float32)  # after it has been at work
        assert (moved(vectors.float(), centers, numbers, n_centers) - exact).abs().max() < (
            3e-6 * exact.abs().max()
        )
