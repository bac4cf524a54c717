"""What scripts rely on in ASE's optimizers, after ase/test/optimize (ASE 3.29)."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import compare_atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.optimize import BFGS
from ase.optimize.optimize import Optimizer
from optimize_cases import eq1, graphite, orthorhombic, puckered

from asexlatent.optimize import SOLVERS, DescriptorCalculator, Status, SymmetricDescriptorOptimizer
from asexlatent.symmetry import CrystalError, SymmetricCrystal


@pytest.fixture
def atoms0() -> Atoms:
    return orthorhombic().to_atoms()


@pytest.fixture
def atoms(atoms0) -> Atoms:
    return atoms0.copy()


def optimizer(atoms, **options) -> SymmetricDescriptorOptimizer:
    """With "adam", which takes as many steps as it is given."""
    return SymmetricDescriptorOptimizer(atoms, **{"logfile": None, "solver": "adam", **options})


# ------------------------------------------------------------------------------- steps and runs


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_irun_yields_once_more_than_it_steps(atoms, steps):
    irun = optimizer(atoms).irun(fmax=0, steps=steps)
    for _ in range(steps + 1):
        next(irun)
    with pytest.raises(StopIteration):
        next(irun)


def test_irun_yields_before_the_first_step(atoms0, atoms):
    irun = optimizer(atoms).irun(fmax=0.0)
    assert next(irun) is False
    assert not compare_atoms(atoms0, atoms)
    next(irun)
    assert sorted(compare_atoms(atoms0, atoms)) == ["cell", "positions"]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_optimize(atoms, solver):
    with optimizer(atoms, solver=solver) as opt:
        assert opt.run(fmax=0.05) is True
    assert opt.converged() is True
    assert opt.statuses == [Status.CONVERGED]
    assert opt.reasons == [""]
    assert opt.converged_mask.tolist() == [True]
    assert opt.nsteps == opt.get_number_of_steps() > 0
    # the Atoms hold the result, and it is what the numbers say
    found = SymmetricCrystal.from_atoms(atoms, space_group=63)
    assert opt.losses[0] == pytest.approx(eq1(found), abs=1e-9)
    assert opt.losses[0] < 1e-3
    assert opt.crystals[0].space_group in (63, 194)


def test_unconverged(atoms):
    with optimizer(atoms) as opt:
        assert opt.run(fmax=1e-9, steps=1) is False
    gradient = opt.optimizable.get_gradient()
    assert gradient.ndim == 1
    assert not opt.gradient_converged(gradient)
    assert opt.converged() is False
    assert opt.todict()["fmax"] == 1e-9
    assert opt.statuses == [Status.STEP_LIMIT]


def test_run_twice(atoms):
    """`steps` counts on across calls, and the second run goes on as one run would."""
    whole = atoms.copy()
    with optimizer(atoms) as opt:
        opt.run(fmax=1e-9, steps=5)
        opt.run(fmax=1e-9, steps=5)
    assert opt.nsteps == 10
    assert opt.max_steps == 10
    once = optimizer(whole)
    once.run(fmax=1e-9, steps=10)
    assert np.allclose(whole.positions, atoms.positions, rtol=0, atol=1e-10)
    assert np.allclose(whole.cell, atoms.cell, rtol=0, atol=1e-10)
    assert once.losses == pytest.approx(opt.losses)


def test_no_steps(atoms0, atoms):
    opt = optimizer(atoms)
    assert opt.run(fmax=0.05, steps=0) is False
    assert opt.nsteps == 0
    assert not compare_atoms(atoms0, atoms)
    good = graphite().to_atoms()
    opt = optimizer(good)
    assert opt.run(fmax=0.05, steps=0) is True
    assert opt.run() is True
    assert opt.nsteps == 0


def test_a_run_ends_when_nothing_can_move():
    """Isolated atoms: a plateau is no solution, and no reason to spin for ever."""
    opt = optimizer(graphite(20, 20).to_atoms())
    assert opt.run(fmax=0.05) is False
    assert opt.nsteps <= 1
    assert opt.statuses == [Status.STALLED]
    assert "no neighbour" in opt.reasons[0]
    assert opt.run(fmax=0.05) is False


def test_is_an_optimizer_of_ase(atoms):
    opt = optimizer(atoms)
    assert isinstance(opt, Optimizer)
    assert opt.atoms is atoms
    assert opt.optimizable.ndofs() == len(opt.optimizable.get_x()) == 5


def test_x_can_be_set(atoms):
    opt = optimizer(atoms)
    x = opt.optimizable.get_x()
    x[0] *= 1.01
    opt.optimizable.set_x(x)
    assert opt.optimizable.get_x() == pytest.approx(x)
    crystal = opt.crystals[0]
    assert crystal.free_variables == pytest.approx(x)
    moved = SymmetricCrystal.from_atoms(atoms, space_group=63)
    assert eq1(moved) == pytest.approx(eq1(crystal), rel=1e-9)
    assert opt.optimizable.get_value() == pytest.approx(eq1(crystal), rel=1e-9)
    value, gradient = opt.optimizable.get_value(), opt.optimizable.get_gradient()
    x[0] += 1e-6
    opt.optimizable.set_x(x)
    slope = (opt.optimizable.get_value() - value) / 1e-6
    assert slope == pytest.approx(gradient[0], rel=1e-4)


def test_atoms_changed_between_runs(atoms):
    opt = optimizer(atoms)
    opt.run(fmax=0.05)
    settled = opt.losses[0]
    atoms.set_cell(atoms.cell * 1.03, scale_atoms=True)
    disturbed = atoms.copy()
    assert opt.run(fmax=0.05, steps=0) is False
    assert opt.losses[0] > 10 * settled
    assert np.allclose(atoms.positions, disturbed.positions, rtol=0, atol=1e-6)
    assert opt.run(fmax=0.05) is True
    assert opt.losses[0] < 1e-4


def test_the_step_limit_can_be_raised_and_the_threshold_lowered(atoms):
    opt = optimizer(atoms)
    assert opt.run(fmax=1.0, steps=500) is True
    steps = opt.nsteps
    assert opt.run(fmax=1.0, steps=500) is True
    assert opt.nsteps == steps
    assert opt.run(fmax=0.05, steps=500) is True
    assert opt.nsteps > steps


# --------------------------------------------------------------------------------- what it leaves


def test_only_cell_and_positions_change(atoms):
    atoms.set_tags(range(len(atoms)))
    atoms.set_momenta(np.arange(3 * len(atoms)).reshape(-1, 3))
    atoms.set_initial_charges(np.linspace(-1, 1, len(atoms)))
    atoms.info["mine"] = {"kept": 1}
    atoms.set_constraint(FixAtoms([]))
    calculator = EMT()
    atoms.calc = calculator
    before = atoms.copy()
    optimizer(atoms).run(fmax=0.05, steps=10)
    assert atoms.calc is calculator
    assert not calculator.results
    assert sorted(compare_atoms(before, atoms)) == ["cell", "positions"]
    assert np.array_equal(atoms.get_tags(), before.get_tags())
    assert np.array_equal(atoms.get_momenta(), before.get_momenta())
    assert atoms.info["mine"] == {"kept": 1}
    assert [type(c) for c in atoms.constraints] == [FixAtoms]
    assert {key for key in atoms.info if key not in before.info} == {"asx_loss"}


def test_the_users_own_cell_and_order_are_kept():
    """A rotated, shuffled, unwrapped supercell of a primitive cell comes back as such."""
    crystal = puckered(0.04, a=2.5)
    atoms = crystal.to_atoms().repeat((2, 1, 1))
    rng = np.random.default_rng(0)
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.rotate(35, (1, 1, 2), rotate_cell=True)
    atoms.positions += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array + [0.3, 0.2, 0.1]
    before = atoms.copy()
    opt = optimizer(atoms)
    opt.run(fmax=0.05, steps=300)
    assert opt.losses[0] < 0.1 * eq1(crystal)
    # nobody jumped by a lattice vector, and the cell is still aligned with the one given
    moved = atoms.get_scaled_positions(wrap=False) - before.get_scaled_positions(wrap=False)
    assert np.abs(moved).max() < 0.2
    directions = atoms.cell.array / atoms.cell.lengths()[:, None]
    expected = before.cell.array / before.cell.lengths()[:, None]
    assert directions == pytest.approx(expected, abs=1e-6)
    assert SymmetricCrystal.from_atoms(atoms).space_group == 194


def test_molecules_and_broken_atoms_are_refused():
    with pytest.raises(CrystalError, match="not periodic along a, b, c"):
        optimizer(Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]))
    broken = graphite().to_atoms()
    broken.positions[0, 0] = np.nan
    with pytest.raises(CrystalError, match="not finite"):
        optimizer(broken)
    foreign = graphite().to_atoms()
    foreign.numbers[:] = 14
    with pytest.raises(ValueError, match="contains Si, but environment sp2 has only C"):
        optimizer(foreign)
    with pytest.raises(CrystalError, match="there are no atoms"):
        optimizer(Atoms())


# ------------------------------------------------------------------------------------- observers


def test_attach(atoms):
    calls: list[tuple] = []

    class Writer:
        def write(self, *args):
            calls.append(("written", *args))

    opt = optimizer(atoms)
    opt.attach(lambda: calls.append(("every", opt.nsteps)))
    opt.attach(lambda tag: calls.append((tag, opt.nsteps)), 3, tag="third")
    opt.attach(lambda: calls.append(("once", opt.nsteps)), interval=-2)
    opt.attach(Writer(), 4, "argument")
    opt.insert_observer(lambda: calls.append(("first", opt.nsteps)))
    opt.run(fmax=1e-9, steps=6)
    assert [n for name, n in calls if name == "every"] == list(range(7))
    assert [n for name, n in calls if name == "third"] == [0, 3, 6]
    assert [n for name, n in calls if name == "once"] == [2]
    assert calls.count(("written", "argument")) == 2
    assert calls[0] == ("first", 0)


def test_observers_see_the_atoms_of_their_step(atoms):
    seen = []
    opt = optimizer(atoms)
    opt.attach(lambda: seen.append((atoms.info["asx_loss"], opt.losses[0], atoms.positions.copy())))
    opt.run(fmax=1e-9, steps=8)
    losses = [loss for loss, _, _ in seen]
    assert losses == [loss for _, loss, _ in seen]
    assert all(a >= b for a, b in pairwise(losses))
    assert losses[0] == pytest.approx(eq1(orthorhombic()), rel=1e-6)
    assert np.array_equal(seen[-1][2], atoms.positions)


# ----------------------------------------------------------------------------------- trajectories


@pytest.mark.parametrize("kind", [str, Path])
def test_trajectory_by_name(atoms0, atoms, tmp_path, kind):
    path = tmp_path / "opt.traj"
    path.write_text("something old")
    with optimizer(atoms, trajectory=kind(path)) as opt:
        opt.run(fmax=1e-9, steps=4)
    images = read(path, ":")
    assert len(images) == 5
    assert not compare_atoms(atoms0, images[0])
    assert np.allclose(images[-1].positions, atoms.positions)
    assert np.allclose(images[-1].cell, atoms.cell)
    with Trajectory(path) as trajectory:
        described = trajectory.description
    assert described["optimizer"] == "SymmetricDescriptorOptimizer"
    assert described["type"] == "optimization"
    assert described["interval"] == 1
    assert (described["environment"], described["solver"]) == ("sp2", "adam")


def test_trajectory_open_writer(atoms0, atoms, tmp_path):
    with Trajectory(tmp_path / "tmp.traj", "w") as writer:
        irun = optimizer(atoms, trajectory=writer).irun(fmax=0.0)
        for _ in range(3):
            next(irun)
    images = read(tmp_path / "tmp.traj", ":")
    assert len(images) == 3
    assert not compare_atoms(atoms0, images[0])
    assert sorted(compare_atoms(atoms0, images[-1])) == ["cell", "positions"]


def test_any_object_that_writes_is_a_trajectory(atoms):
    class Frames(list):
        def write(self, atoms):
            self.append(atoms.copy())

    frames = Frames()
    optimizer(atoms, trajectory=frames).run(fmax=1e-9, steps=3)
    assert len(frames) == 4


def test_trajectory_is_appended_to(atoms, tmp_path):
    path = tmp_path / "opt.traj"
    optimizer(atoms, trajectory=path).run(fmax=1e-9, steps=3)
    optimizer(atoms, trajectory=path, append_trajectory=True).run(fmax=1e-9, steps=2)
    # the first frame of the second run is the last of the first: it is not written twice
    images = read(path, ":")
    assert len(images) == 4 + 2
    losses = [image.info["asx_loss"] for image in images]
    assert losses == sorted(losses, reverse=True)
    optimizer(atoms, trajectory=path).run(fmax=1e-9, steps=1)
    assert len(read(path, ":")) == 2


def test_loginterval_thins_the_trajectory(atoms, tmp_path):
    path = tmp_path / "opt.traj"
    optimizer(atoms, trajectory=path, loginterval=3).run(fmax=1e-9, steps=7)
    assert len(read(path, ":")) == 3


@pytest.mark.parametrize("calculator", [None, EMT, DescriptorCalculator])
def test_the_loss_poses_as_no_energy(atoms, tmp_path, calculator):
    path = tmp_path / "opt.traj"
    atoms.calc = None if calculator is None else calculator()
    with optimizer(atoms, trajectory=path) as opt:
        opt.run(fmax=1e-9, steps=3)
    for image in read(path, ":"):
        assert image.calc is None or image.calc.results == {}
        assert image.info["asx_loss"] > 0
    assert read(path).info["asx_loss"] == pytest.approx(opt.losses[0])


# -------------------------------------------------------------------------------------------- log


def test_the_log_has_the_columns_of_ase(tmp_path):
    """Header and first line beside those of BFGS on the same numbers, then one column more."""
    crystal = puckered(0.05)
    reference = crystal.to_atoms()
    reference.calc = DescriptorCalculator(extensive=False)
    theirs, ours = io.StringIO(), io.StringIO()
    BFGS(reference, logfile=theirs).run(fmax=1e-9, steps=0)
    optimizer(crystal.to_atoms(), logfile=ours).run(fmax=1e-9, steps=2)
    header, line = theirs.getvalue().splitlines()
    mine = ours.getvalue().splitlines()
    name = "SymmetricDescriptorOptimizer"
    assert mine[0] == header.replace(" " * len("BFGS"), " " * len(name), 1) + "   Active"
    assert len(mine) == 4
    number = r"\s+(-?\d+\.\d{6})"
    pattern = rf"(\w+):\s{{2,}}(\d+) \d\d:\d\d:\d\d{number}{number}"
    expected = re.fullmatch(pattern, line)
    for step, text in enumerate(mine[1:]):
        found = re.fullmatch(pattern + r"\s+(\d+)", text)
        assert found[1] == name
        assert int(found[2]) == step
        assert found[5] == "1"
        if step == 0:
            assert found[3] == expected[3]
            assert text.index(found[3]) - len(name) == line.index(expected[3]) - len("BFGS")


def test_log_on_the_screen_in_a_file_and_nowhere(atoms0, tmp_path, capsys):
    SymmetricDescriptorOptimizer(atoms0.copy()).run(fmax=1e-9, steps=1)
    assert len(capsys.readouterr().out.splitlines()) == 3
    optimizer(atoms0.copy(), logfile="-").run(fmax=1e-9, steps=1)
    assert len(capsys.readouterr().out.splitlines()) == 3
    optimizer(atoms0.copy(), logfile=None).run(fmax=1e-9, steps=1)
    assert capsys.readouterr().out == ""
    for path in (tmp_path / "a.log", str(tmp_path / "b.log")):
        optimizer(atoms0.copy(), logfile=path).run(fmax=1e-9, steps=2)
        assert len(Path(path).read_text().splitlines()) == 4
    with open(tmp_path / "c.log", "w") as file:
        optimizer(atoms0.copy(), logfile=file).run(fmax=1e-9, steps=2)
    assert len((tmp_path / "c.log").read_text().splitlines()) == 4


def test_todict(atoms, tmp_path):
    described = optimizer(atoms, restart=tmp_path / "restart.json").todict()
    assert described["type"] == "optimization"
    assert described["optimizer"] == "SymmetricDescriptorOptimizer"
    assert described["restart"] == str(tmp_path / "restart.json")
    assert optimizer(atoms).todict()["restart"] is None


# ----------------------------------------------------------------------------------- drop-in


SCRIPT = """
def relax(atoms, optimizer):
    atoms.calc = DescriptorCalculator(extensive=True)
    frames = []
    with optimizer(FrechetCellFilter(atoms), trajectory=str(path), logfile=None) as dyn:
        dyn.attach(lambda: frames.append(atoms.get_volume()), interval=2)
        done = dyn.run(fmax=0.05, steps=500)
    return done, dyn.get_number_of_steps(), frames
"""


@pytest.mark.parametrize("cls", [BFGS, SymmetricDescriptorOptimizer])
def test_a_script_runs_unchanged(cls, tmp_path):
    from ase.filters import FrechetCellFilter

    path = tmp_path / "run.traj"
    names = {
        "path": path,
        "DescriptorCalculator": DescriptorCalculator,
        "FrechetCellFilter": FrechetCellFilter,
    }
    exec(SCRIPT, names)
    atoms = orthorhombic().to_atoms()
    done, steps, frames = names["relax"](atoms, cls)
    assert done is True or done == np.True_
    assert len(read(path, ":")) == steps + 1
    assert len(frames) == steps // 2 + 1
    assert atoms.get_potential_energy() < 1e-3
    assert np.abs(FrechetCellFilter(atoms).get_forces()).max() < 0.05
