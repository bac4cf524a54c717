"""LatentRefiner as ASE uses it; conditions, best iterates, members that cannot be taken."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.filters import StrainFilter
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.optimize.optimize import RestartError
from latent_cases import random_crystals, tiny_model

import asexlatent
from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent import Condition, LatentRefiner, ModelError
from asexlatent.latent.latent_set import own_cell
from asexlatent.optimize import Status, refine
from asexlatent.symmetry import CrystalError, SymmetricCrystal, read_table, wyckoff_positions
from asexlatent.symmetry.table import TABLE_COLUMNS

UNKNOWN = SymmetricCrystal.build(1, (3.0, 3.1, 3.2, 1.5, 1.6, 1.7), [("C", 0, (0.1, 0.2, 0.3))])


def crystals(n: int = 3) -> list[SymmetricCrystal]:
    return list(random_crystals()[:n])


def refiner(atoms, **options) -> LatentRefiner:
    return LatentRefiner(atoms, model=tiny_model(), **{"logfile": None, **options})


def test_it_is_a_public_name():
    assert asexlatent.LatentRefiner is LatentRefiner


@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize("starts", ["prior", "encoder", "both"])
def test_losses_fall_and_conditions_stay(solver, starts):
    given = crystals(4)
    opt = refiner(given, solver=solver, starts=starts, samples=2)
    seen = []
    opt.attach(lambda: seen.append(opt.losses.copy()))
    assert opt.run(steps=12) is False
    assert len(seen) == 13
    seen = np.array(seen)
    assert (np.diff(seen, axis=0) <= 1e-12).all()
    assert (seen[-1] < seen[0]).sum() >= 3  # one may clash too hard to move in a dozen steps
    for before, after, atoms, loss in zip(given, opt.crystals, opt.atoms, opt.losses, strict=True):
        assert Condition.from_crystal(after) == Condition.from_crystal(before)
        assert not np.allclose(after.free_variables, before.free_variables)
        # the atoms are the crystal, and its loss is the one reported
        (again,) = refine([after], steps=0)
        assert again.loss_initial == pytest.approx(loss, rel=1e-6)
        assert atoms.info["asx_loss"] == pytest.approx(loss)
        np.testing.assert_allclose(atoms.cell, after.cell, atol=1e-9)
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        operations = spglib.get_symmetry(cell, symprec=1e-4)
        order = wyckoff_positions(before.space_group)[0].multiplicity
        assert len(operations["rotations"]) % order == 0


def test_atoms_keep_cell_order_and_everything_else():
    """A rotated primitive cell in another order; the crystal is embedded in it as before."""
    crystal = SymmetricCrystal.build(166, (2.6, 11.0), [("C", "c", [0.1]), ("C", "c", [0.4])])
    atoms = crystal.to_atoms()
    atoms.rotate(30, (1, 2, 3), rotate_cell=True)
    atoms = atoms[::-1]
    atoms.set_tags(range(len(atoms)))
    atoms.info["mine"] = 1
    found = SymmetricCrystal.from_atoms(atoms)
    opt = refiner(atoms)
    before = atoms.copy()
    assert opt.atoms is atoms
    np.testing.assert_array_equal(before.positions, atoms.positions)  # nothing before the run
    opt.run(steps=2)
    assert not np.allclose(before.cell, atoms.cell)
    assert (atoms.get_tags() == np.arange(len(atoms))).all()
    assert atoms.info["mine"] == 1
    again = SymmetricCrystal.from_atoms(atoms, space_group=found.space_group)
    assert again.n_atoms == found.n_atoms
    np.testing.assert_allclose(again.volume, opt.crystals[0].volume)


def test_steps_may_be_none():
    (crystal,) = crystals(1)
    opt = refiner(crystal, seed=3)
    assert opt.run(steps=0) is False
    other = refiner(crystal, seed=3)
    other.run(steps=5)
    assert other.losses[0] < opt.losses[0]
    opt.run(steps=5)  # goes on where it was
    assert opt.nsteps == 5
    np.testing.assert_allclose(opt.losses, other.losses, rtol=1e-6)


def test_members_do_not_feel_each_other():
    alone = []
    for k in range(3):  # the key of the random numbers is the place in the list
        opt = refiner([UNKNOWN] * k + [crystals()[k]], samples=2)
        opt.run(steps=8)
        alone.append(opt.crystals[k].free_variables)
    together = refiner(crystals(), samples=2)
    together.run(steps=8)
    for one, crystal in zip(alone, together.crystals, strict=True):
        np.testing.assert_allclose(crystal.free_variables, one, rtol=1e-4, atol=1e-5)


def test_of_several_samples_the_best_is_kept():
    """Sample by sample: the first of many is that of one."""
    one = refiner(crystals(), samples=1)
    many = refiner(crystals(), samples=6)
    one.run(steps=4)
    many.run(steps=4)
    assert (many.losses <= one.losses * (1 + 1e-5)).all()
    assert (many.losses < one.losses * 0.999).any()


def test_what_the_model_does_not_know_fails_with_a_reason():
    with pytest.raises(CrystalError, match="space group 1 was not in the training data"):
        refiner(UNKNOWN)
    silicon = SymmetricCrystal.build(194, (2.5, 6.7), [("Si", "b", [])])
    opt = refiner([UNKNOWN, crystals()[0], silicon], environment="sp2")
    opt.run(steps=2)
    assert opt.statuses == [Status.FAILED, Status.STEP_LIMIT, Status.FAILED]
    assert "space group 1" in opt.reasons[0]
    assert "Si" in opt.reasons[2]
    assert np.isnan(opt.losses[[0, 2]]).all()
    assert opt.crystals[0] is None


def test_filters_and_constraints_are_refused():
    atoms = crystals()[0].to_atoms()
    with pytest.raises(CrystalError, match="take the filter"):
        refiner(StrainFilter(atoms))
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    with pytest.raises(CrystalError, match="constraint"):
        refiner(atoms)


def test_rows_of_a_table(tmp_path):
    import csv

    path = tmp_path / "t.csv"
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, TABLE_COLUMNS)
        writer.writeheader()
        writer.writerows([crystals()[0].to_row(), crystals()[1].to_row() | {"spg": 999}])
    opt = refiner(list(read_table(path)))
    opt.run(steps=1)
    assert [str(s) for s in opt.statuses] == ["step_limit", "failed"]
    assert opt.crystals[0].wyckoffs == crystals()[0].wyckoffs
    assert isinstance(opt.atoms[0], Atoms)


def test_log_trajectory_and_context(tmp_path, capsys):
    path = tmp_path / "t.traj"
    with refiner(crystals(2), logfile="-", trajectory=str(path)) as opt:
        opt.run(steps=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Step", "Time", "Energy", "fmax", "Active"]
    assert len(lines) == 5
    assert float(lines[-1].split()[3]) == pytest.approx(opt.losses.mean(), abs=1e-5)
    frames = read(path, ":")
    assert len(frames) == 2 * 4
    assert frames[-1].info["asx_loss"] == pytest.approx(opt.losses[1])
    with Trajectory(path) as trajectory:
        assert trajectory.description["optimizer"] == "LatentRefiner"


def test_convergence_is_of_the_gradient_in_z():
    opt = refiner(crystals(2), environment=LocalEnvironment.named("sp2", rcut=4.0))
    assert opt.run(fmax=1e9, steps=5) is True
    assert opt.nsteps == 0
    assert opt.converged_mask.all()
    gradient = opt.optimizable.get_gradient()
    norms = np.linalg.norm(gradient.reshape(2, -1), axis=1)
    assert opt.optimizable.gradient_norm(gradient) == pytest.approx(norms.max())


def test_x_can_be_set():
    opt = refiner(crystals(2), samples=2)
    opt.run(steps=1)
    x = opt.optimizable.get_x()
    assert x.shape == (opt.optimizable.ndofs(),) == (2 * 4,)
    opt.optimizable.set_x(0 * x)
    zero = tiny_model().decode(torch.zeros(2, 4), [Condition.from_crystal(c) for c in crystals(2)])
    for crystal, decoded in zip(opt.crystals, zero, strict=True):
        np.testing.assert_allclose(crystal.free_variables, decoded.free_variables, rtol=1e-5)


def test_the_prior_holds_z_back():
    norms = []
    for weight in (0.0, 1e3):
        opt = refiner(crystals(2), prior_weight=weight)
        opt.run(steps=40)
        norms.append(np.linalg.norm(opt.optimizable.get_x()))
        for crystal, loss in zip(opt.crystals, opt.losses, strict=True):  # Eq. 1 without the prior
            (again,) = refine([crystal], steps=0)
            assert loss == pytest.approx(again.loss_initial, rel=1e-5, abs=1e-5)
    assert norms[1] < 0.7 * norms[0]


def test_an_interrupted_run_goes_on(tmp_path):
    whole = refiner(crystals(2), samples=2)
    whole.run(steps=8)
    path = tmp_path / "r.json"
    first = refiner([c.to_atoms() for c in crystals(2)], samples=2, restart=path)
    first.run(steps=3)
    atoms = [a.copy() for a in first.atoms]
    second = refiner(atoms, samples=2, restart=path)
    second.run(steps=5)
    direct = refiner([c.to_atoms() for c in crystals(2)], samples=2)
    direct.run(steps=8)
    np.testing.assert_allclose(second.losses, direct.losses, rtol=1e-5)
    np.testing.assert_allclose(atoms[0].positions, direct.atoms[0].positions, atol=1e-4)

    with pytest.raises(RestartError, match="another model, target or option"):
        refiner(atoms, samples=2, restart=path, environment="sp3")
    path.write_text('{"format": "asexlatent-restart-1"}')
    with pytest.raises(RestartError, match="not a restart file of LatentRefiner"):
        refiner(atoms, samples=2, restart=path)


def test_float32():
    opt = refiner(crystals(2), dtype=torch.float32)
    opt.run(steps=5)
    exact = refiner(crystals(2))
    exact.run(steps=5)
    np.testing.assert_allclose(opt.losses, exact.losses, rtol=0.02)


def test_wrong_options_and_models(tmp_path):
    with pytest.raises(ValueError, match="starts must be"):
        refiner(crystals(1), starts="zero")
    with pytest.raises(ValueError, match="samples=2"):
        refiner(crystals(1), starts="both")
    with pytest.raises(ValueError, match="adam or lm"):
        refiner(crystals(1), solver="lbfgs")
    with pytest.raises(ModelError, match="no model in"):
        LatentRefiner(crystals(1), model=tmp_path)
    with pytest.raises(ModelError, match="conditional"):
        LatentRefiner(crystals(1), model=tiny_model("tabular"))


def test_the_encoder_starts_at_the_mean_of_the_crystal():
    known = [c for c in random_crystals() if tiny_model().problem(c) is None][:2]
    opt = refiner(known, starts="encoder")
    opt.run(steps=0)
    mean, _ = tiny_model().encode(known)
    np.testing.assert_allclose(opt.optimizable.get_x(), mean.numpy().ravel(), rtol=1e-5, atol=1e-6)


def test_own_cell_is_the_conventional_one():
    for crystal in crystals(5):
        cell, positions = own_cell(crystal).embedding.apply(crystal)
        atoms = crystal.to_atoms()
        np.testing.assert_allclose(cell, atoms.cell)
        scaled = np.linalg.solve(cell.T, (positions - atoms.positions).T)
        np.testing.assert_allclose(scaled, np.rint(scaled), atol=1e-9)
