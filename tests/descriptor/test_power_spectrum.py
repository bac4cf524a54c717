"""PowerSpectrum: derivatives, invariances, limits, species, settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from descriptor_cases import flat, graphite, random_pairs, spectra_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from asexlatent.descriptor import PowerSpectrum, neighbor_pairs, pair_vectors

MODELS = {
    "default": {},
    "species": {"nmax": 2, "lmax": 3, "weighting": "species", "species": ["H", "C", 8]},
    "unit": {"nmax": 4, "lmax": 6, "weighting": "unit", "cutoff": "polynomial", "rcut": 2.3},
    "smallest": {"nmax": 1, "lmax": 0},
    "one degree": {"nmax": 2, "lmax": 1},
    "large": {"nmax": 8, "lmax": 8},
}


def plain(model, vectors, centers, numbers, n_centers):
    """The same through operations that autograd records."""
    total = model._plain(vectors, centers, numbers, n_centers)
    return model._kernel.contract(total)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_hand_written_derivatives_equal_autograd(name, shuffled):
    model = PowerSpectrum(**MODELS[name])
    vectors, centers, numbers, n_centers = random_pairs(0, n_pairs=60)
    if shuffled:
        order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
        vectors, centers, numbers = vectors[order], centers[order], numbers[order]
    vectors.requires_grad_()
    reference = plain(model, vectors, centers, numbers, n_centers)
    spectra = model(vectors, centers, numbers, n_centers)
    scale = float(reference.detach().abs().max())
    torch.testing.assert_close(spectra, reference, rtol=0, atol=1e-12 * scale)

    seeds = torch.randn(spectra.shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad((reference * seeds).sum(), vectors)
    (gradient,) = torch.autograd.grad((spectra * seeds).sum(), vectors)
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12 * scale)

    again, jacobian = model.with_pair_jacobian(vectors, centers, numbers, n_centers)
    torch.testing.assert_close(again, spectra.detach())
    contracted = (jacobian * seeds[centers][:, :, None]).sum(1)
    torch.testing.assert_close(contracted, expected, rtol=0, atol=1e-12 * scale)

    tangents = torch.randn(60, 3, 5, dtype=torch.float64)
    again, moved = model.with_parameter_jacobian(vectors, centers, numbers, n_centers, tangents)
    torch.testing.assert_close(again, spectra.detach())
    by_pair = torch.einsum("plx,pxv->plv", jacobian, tangents)
    total = torch.zeros_like(moved).index_add_(0, centers, by_pair)
    torch.testing.assert_close(moved, total, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("name", ["default", "species", "unit", "smallest"])
def test_derivatives_equal_finite_differences(name):
    model = PowerSpectrum(**MODELS[name])
    vectors, centers, numbers, _ = random_pairs(4, n_pairs=5, n_centers=3)
    vectors.requires_grad_()

    def spectra(v):
        return model(v, centers, numbers, 3)

    assert torch.autograd.gradcheck(spectra, vectors)
    assert torch.autograd.gradgradcheck(spectra, vectors)


def test_derivatives_for_positions_and_cell():
    model = PowerSpectrum()
    scaled, cells, crystal, numbers = flat([bulk("C", cubic=False), bulk("Si", a=3.4)])
    scaled = scaled + 0.03 * torch.randn(scaled.shape, dtype=torch.float64)
    centers = torch.arange(len(scaled))
    pairs = neighbor_pairs(scaled, cells, crystal, centers, model.rcut)

    def spectra(s, c):
        vectors = pair_vectors(s, c, crystal, centers, pairs)
        return model(vectors, pairs.centers, numbers[pairs.neighbors], len(centers))

    inputs = (scaled.requires_grad_(), cells.requires_grad_())
    assert torch.autograd.gradcheck(spectra, inputs)
    assert torch.autograd.gradgradcheck(spectra, inputs)


def test_forward_mode_and_vmap_work():
    model = PowerSpectrum()
    vectors, centers, numbers, n_centers = random_pairs(6, n_pairs=10)

    def spectra(v):
        return model(v, centers, numbers, n_centers)

    forward = torch.func.jacfwd(spectra)(vectors)
    backward = torch.func.jacrev(spectra)(vectors)
    torch.testing.assert_close(forward, backward)


@pytest.mark.slow
def test_compiled_equals_eager():
    model = PowerSpectrum()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for n_pairs in (40, 700, 5003):
        vectors, centers, numbers, n_centers = random_pairs(7, n_pairs, max(n_pairs // 8, 2))
        vectors.requires_grad_()
        expected = model(vectors, centers, numbers, n_centers)
        try:
            spectra = compiled(vectors, centers, numbers, n_centers)
        except Exception as error:
            if "compiler" in str(error).lower():
                pytest.skip(f"no compiler: {error}")
            raise
        torch.testing.assert_close(spectra, expected, rtol=1e-10, atol=1e-9)
        (a,) = torch.autograd.grad(spectra.sum(), vectors)
        (b,) = torch.autograd.grad(expected.sum(), vectors)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-8)


def test_many_pairs_are_handled_in_parts():
    """More than one chunk, and a centre with more neighbours than a chunk holds."""
    model = PowerSpectrum()
    vectors, centers, numbers, n_centers = random_pairs(8, n_pairs=30000, n_centers=400)
    centers[5000:15000] = 100
    centers = centers.sort().values
    vectors.requires_grad_()
    reference = plain(model, vectors, centers, numbers, n_centers)
    spectra = model(vectors, centers, numbers, n_centers)
    scale = float(reference.detach().abs().max())
    torch.testing.assert_close(spectra, reference, rtol=0, atol=1e-11 * scale)
    (expected,) = torch.autograd.grad(reference.sum(), vectors)
    (gradient,) = torch.autograd.grad(spectra.sum(), vectors)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))
    _, jacobian = model.with_pair_jacobian(vectors, centers, numbers, n_centers)
    torch.testing.assert_close(jacobian.sum(1), expected, rtol=0, atol=1e-10 * scale)


# ---------------------------------------------------------------- invariances


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(["default", "species", "unit"]))
def test_rotations_and_reflections_change_nothing(seed, name):
    model = PowerSpectrum(**MODELS[name])
    vectors, centers, numbers, n_centers = random_pairs(seed)
    turn = torch.tensor(ortho_group.rvs(3, random_state=seed))
    before = model(vectors, centers, numbers, n_centers)
    after = model(vectors @ turn.T, centers, numbers, n_centers)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-11 * float(before.abs().max()))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_translation_order_and_supercell_change_nothing(seed):
    generator = np.random.default_rng(seed)
    cell = np.eye(3) * 2.8 + generator.normal(scale=0.4, size=(3, 3))
    atoms = Atoms("CHOC", cell=cell, scaled_positions=generator.random((4, 3)), pbc=True)
    model = PowerSpectrum(rcut=2.6)
    expected = spectra_of(atoms, model)
    scale = np.abs(expected).max()

    moved = atoms.copy()
    moved.positions += generator.normal(scale=5, size=3)
    moved.positions += generator.integers(-2, 3, (4, 3)) @ cell  # unwrapped atoms
    np.testing.assert_allclose(spectra_of(moved, model), expected, atol=1e-10 * scale)

    order = generator.permutation(4)
    np.testing.assert_allclose(spectra_of(atoms[order], model), expected[order], atol=1e-11 * scale)

    large = make_supercell(atoms, [[1, 1, 0], [0, 2, 0], [-1, 0, 1]])
    found = spectra_of(large, model)
    for z in set(atoms.numbers):
        ours = np.sort(found[large.numbers == z], axis=0)
        theirs = np.sort(np.tile(expected[atoms.numbers == z], (2, 1)), axis=0)
        np.testing.assert_allclose(ours, theirs, atol=1e-10 * scale)


# --------------------------------------------------------------------- limits


def test_no_neighbour_is_the_zero_spectrum_with_zero_gradient():
    model = PowerSpectrum()
    empty = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.long)
    spectra = model(empty, nothing, nothing, 3)
    assert spectra.shape == (3, 15)
    assert not spectra.any()
    (gradient,) = torch.autograd.grad(spectra.sum(), empty)
    assert gradient.shape == (0, 3)
    assert model(empty, nothing, nothing, 0).shape == (0, 15)
    assert model.with_pair_jacobian(empty, nothing, nothing, 2)[1].shape == (0, 15, 3)
    tangents = torch.zeros(0, 3, 4, dtype=torch.float64)
    _, jacobian = model.with_parameter_jacobian(empty, nothing, nothing, 2, tangents)
    assert jacobian.shape == (2, 15, 4)
    assert not jacobian.any()


@pytest.mark.parametrize("factor", [1.0, 1.0001, 1.5, 100.0])
def test_pairs_from_the_cutoff_on_contribute_nothing(factor):
    model = PowerSpectrum()
    vectors = torch.tensor([[0.0, 0.0, 2.1 * factor]], dtype=torch.float64, requires_grad=True)
    one = torch.zeros(1, dtype=torch.long)
    spectra = model(vectors, one, one + 6, 1)
    assert not spectra.any()
    (gradient,) = torch.autograd.grad(spectra.sum(), vectors)
    assert not gradient.any()


def test_spectrum_and_gradient_vanish_smoothly_at_the_cutoff():
    model = PowerSpectrum()
    vectors = torch.tensor([[0.0, 0.0, 2.1 - 1e-5]], dtype=torch.float64, requires_grad=True)
    one = torch.zeros(1, dtype=torch.long)
    spectra = model(vectors, one, one + 6, 1)
    (gradient,) = torch.autograd.grad(spectra.sum(), vectors)
    assert spectra.abs().max() < 1e-15
    assert gradient.abs().max() < 1e-12


def test_one_neighbour_depends_on_its_distance_only():
    model = PowerSpectrum()
    vectors = 1.3 * torch.eye(3, dtype=torch.float64)
    spectra = model(vectors, torch.arange(3), torch.full((3,), 6), 3)
    torch.testing.assert_close(spectra[1:], spectra[:1].expand(2, -1), rtol=1e-13, atol=1e-12)
    assert (spectra[0, :5] > 0).all()  # one Gaussian has every degree


def test_coincident_atoms_have_a_finite_spectrum_and_gradient():
    model = PowerSpectrum()
    for length in (0.0, 1e-160, 1e-8):
        vectors = torch.tensor([[length, 0, 0], [0, 0, 1.2]], dtype=torch.float64)
        vectors.requires_grad_()
        zero = torch.zeros(2, dtype=torch.long)
        spectra = model(vectors, zero, zero + 6, 1)
        assert torch.isfinite(spectra).all()
        assert spectra[0, 0] > 100
        (gradient,) = torch.autograd.grad(spectra.sum(), vectors, create_graph=True)
        assert torch.isfinite(gradient).all()
        (second,) = torch.autograd.grad(gradient.sum(), vectors)
        assert torch.isfinite(second).all()


def test_bond_along_z_feels_a_sideways_force():
    """Angles would give zero or NaN here."""
    model = PowerSpectrum()
    vectors = torch.tensor([[0, 0, 1.4], [1.2, 0, 0.7]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(2, dtype=torch.long)
    (gradient,) = torch.autograd.grad(model(vectors, zero, zero + 6, 1)[0, 2], vectors)
    assert gradient[0, 0].abs() > 1e-3


# -------------------------------------------------------- species and settings


def test_channels_are_the_densities_of_the_species():
    vectors, centers, numbers, n_centers = random_pairs(9)
    apart = PowerSpectrum(weighting="species", species=["H", "C", "O"])
    together = PowerSpectrum()
    channels = apart.coefficients(vectors, centers, numbers, n_centers)
    assert channels.shape == (n_centers, 3, 2, 25)
    total = together.coefficients(vectors, centers, numbers, n_centers)
    torch.testing.assert_close(channels.sum(1), total)
    carbon = numbers == 6
    only = together.coefficients(vectors[carbon], centers[carbon], numbers[carbon], n_centers)
    torch.testing.assert_close(channels[:, 1], only)


def test_order_of_the_components_of_channels():
    model = PowerSpectrum(nmax=2, lmax=1, weighting="species", species=["H", "C"])
    vectors, centers, numbers, n_centers = random_pairs(10, elements=(1, 6))
    c = model.coefficients(vectors, centers, numbers, n_centers).reshape(n_centers, 4, 4)
    spectra = model(vectors, centers, numbers, n_centers)
    position = 0
    for k in range(4):  # (H, 1), (H, 2), (C, 1), (C, 2)
        for other in range(k + 1):
            for degree in range(2):
                part = slice(degree**2, (degree + 1) ** 2)
                value = (c[:, k, part] * c[:, other, part]).sum(1)
                value = value * 2 * np.sqrt(2) * np.pi / np.sqrt(2 * degree + 1)
                torch.testing.assert_close(spectra[:, position], value)
                position += 1
    assert position == model.n_components


def test_weightings():
    vectors, centers, numbers, n_centers = random_pairs(11, elements=(6,))
    unit = PowerSpectrum(weighting="unit")(vectors, centers, numbers, n_centers)
    charge = PowerSpectrum(weighting="Z")(vectors, centers, numbers, n_centers)
    torch.testing.assert_close(charge, 36 * unit)


def test_foreign_neighbour_is_named():
    model = PowerSpectrum(weighting="species", species=["B", "N"])
    vectors, centers, numbers, n_centers = random_pairs(12, elements=(5, 14))
    with pytest.raises(ValueError, match=r"neighbour is Si.*B, N"):
        model(vectors, centers, numbers, n_centers)


def test_settings_rebuild_the_descriptor():
    import json

    for options in MODELS.values():
        model = PowerSpectrum(**options)
        again = PowerSpectrum(**json.loads(json.dumps(model.settings())))
        assert again.settings() == model.settings()
        assert "nmax" in repr(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nmax": 0}, "nmax"),
        ({"lmax": -1}, "lmax"),
        ({"rcut": 0}, "rcut"),
        ({"alpha": float("nan")}, "alpha"),
        ({"weighting": "mass"}, "weighting"),
        ({"cutoff": "tanh"}, "cutoff"),
        ({"weighting": "species"}, "species"),
        ({"species": ["C"]}, "species"),
        ({"weighting": "species", "species": ["C", 6]}, "twice"),
        ({"weighting": "species", "species": ["Xy"]}, "Xy"),
        ({"dtype": torch.float16}, "float16"),
    ],
)
def test_senseless_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PowerSpectrum(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    vectors, centers, numbers, n_centers = random_pairs(13, 5000, 300)
    expected, jacobian = PowerSpectrum().with_pair_jacobian(vectors, centers, numbers, n_centers)
    model = PowerSpectrum(device="cuda")
    arrays = (vectors.cuda(), centers.cuda(), numbers.cuda())
    torch.testing.assert_close(model(*arrays, n_centers).cpu(), expected)
    torch.testing.assert_close(model.with_pair_jacobian(*arrays, n_centers)[1].cpu(), jacobian)


def test_graphite_layers_far_apart_do_not_see_each_other():
    wide = graphite()
    wide.set_cell([2.46, 2.46, 16.7, 90, 90, 120], scale_atoms=True)
    model = PowerSpectrum()
    np.testing.assert_allclose(spectra_of(wide, model), spectra_of(graphite(), model), atol=1e-12)
