"""The restart file: an interrupted run goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.io.jsonio import read_json, write_json
from ase.optimize import BFGS, RestartError
from optimize_cases import graphite, orthorhombic, puckered

from asexlatent.optimize import SOLVERS, DescriptorCalculator, SymmetricDescriptorOptimizer
from asexlatent.symmetry import CrystalError

solvers = pytest.mark.parametrize("solver", sorted(SOLVERS))


@pytest.fixture
def restart(tmp_path) -> Path:
    return tmp_path / "restart.json"


def optimizer(atoms, restart=None, **options) -> SymmetricDescriptorOptimizer:
    return SymmetricDescriptorOptimizer(
        atoms, restart, **{"logfile": None, "solver": "adam", **options}
    )


def members() -> list[Atoms]:
    """Three crystals, one in a turned supercell, and in the middle one that cannot be refined."""
    turned = puckered(0.02, a=2.5).to_atoms().repeat((2, 1, 1))
    turned.rotate(30, (1, 2, 3), rotate_cell=True)
    molecule = Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]])
    return [orthorhombic().to_atoms(), molecule, turned, graphite(2.4).to_atoms()]


@solvers
def test_interrupted_and_continued_is_uninterrupted(restart, tmp_path, solver):
    whole = members()
    single = optimizer(whole, solver=solver, trajectory=tmp_path / "single.traj")
    single.run(fmax=0.05, steps=40)

    broken = members()
    first = optimizer(broken, restart, solver=solver, trajectory=tmp_path / "parts.traj")
    for k, _ in enumerate(first.irun(fmax=0.05, steps=40)):
        if k == 4:
            break
    assert first.nsteps == 4
    # the script starts again from its own input, knowing nothing of the first part
    broken = members()
    second = optimizer(
        broken, restart, solver=solver, trajectory=tmp_path / "parts.traj", append_trajectory=True
    )
    assert second.losses == pytest.approx(first.losses, nan_ok=True)
    second.run(fmax=0.05, steps=40 - 4)

    assert first.nsteps + second.nsteps == single.nsteps
    assert second.statuses == single.statuses
    assert second.reasons == single.reasons
    assert second.losses == pytest.approx(single.losses, nan_ok=True, abs=1e-12)
    for mine, theirs in zip(broken, whole, strict=True):
        assert np.allclose(mine.positions, theirs.positions, rtol=0, atol=1e-8)
        assert np.allclose(mine.cell, theirs.cell, rtol=0, atol=1e-8)
    mine, theirs = (read(tmp_path / name, ":") for name in ("parts.traj", "single.traj"))
    assert len(mine) == len(theirs) == 4 * (single.nsteps + 1)
    for a, b in zip(mine, theirs, strict=True):
        assert np.allclose(a.positions, b.positions, rtol=0, atol=1e-8)


def test_continues_from_a_frame_of_the_trajectory(restart, tmp_path):
    atoms = orthorhombic().to_atoms()
    optimizer(atoms, restart, trajectory=tmp_path / "opt.traj").run(fmax=1e-9, steps=15)
    for frame in (0, 4, -1):
        later = read(tmp_path / "opt.traj", frame)
        opt = optimizer(later, restart)
        assert np.allclose(later.positions, atoms.positions, rtol=0, atol=1e-9)
        assert opt.run(fmax=1e-9, steps=0) is False
    wrapped = atoms.copy()
    wrapped.wrap()
    optimizer(wrapped, restart)


def test_filters_and_held_variables_are_those_of_the_script(restart):
    atoms = orthorhombic().to_atoms()
    mask = [1, 1, 0, 0, 0, 0]
    optimizer(FrechetCellFilter(atoms, mask=mask), restart).run(fmax=1e-9, steps=5)
    height = atoms.cell[2, 2]
    again = orthorhombic().to_atoms()
    optimizer(FrechetCellFilter(again, mask=mask), restart).run(fmax=1e-9, steps=5)
    assert again.cell[2, 2] == height
    assert again.cell[0, 0] != atoms.cell[0, 0]


def test_a_finished_run_stays_finished(restart):
    atoms = graphite(2.4).to_atoms()
    assert optimizer(atoms, restart).run(fmax=0.05)
    opt = optimizer(graphite(2.4).to_atoms(), restart)
    assert opt.run(fmax=0.05) is True
    assert opt.nsteps == 0


def test_the_file_is_written_at_every_step_and_named_in_todict(restart):
    opt = optimizer(orthorhombic().to_atoms(), restart)
    assert not restart.exists()
    assert opt.todict()["restart"] == str(restart)
    sizes = []
    for _ in opt.irun(fmax=1e-9, steps=2):
        sizes.append(read_json(restart)["state"]["steps"][0] if restart.exists() else None)
    assert sizes == [None, 1, 2]
    assert list(restart.parent.iterdir()) == [restart]
    assert optimizer(orthorhombic().to_atoms()).todict()["restart"] is None
    json.loads(restart.read_text())


# ------------------------------------------------------------------------- files that do not fit


@pytest.mark.parametrize("content", ["hello world\n", "", '{"format": "asexlatent-rest'])
def test_a_file_that_is_no_json(restart, content):
    restart.write_text(content)
    for atoms in (Atoms(), graphite().to_atoms(), [graphite().to_atoms()]):
        with pytest.raises(RestartError, match="Could not decode"):
            optimizer(atoms, restart=str(restart))


def test_a_file_of_another_optimizer(restart):
    atoms = orthorhombic().to_atoms()
    atoms.calc = DescriptorCalculator()
    BFGS(atoms, restart=restart, logfile=None).run(steps=2)
    with pytest.raises(RestartError, match="is not a restart file of SymmetricDescriptorOptimizer"):
        optimizer(atoms, restart)


def test_a_file_of_another_solver(restart):
    optimizer(orthorhombic().to_atoms(), restart, solver="adam").run(steps=2)
    with pytest.raises(RestartError, match="the solver was 'adam', not 'lm'"):
        optimizer(orthorhombic().to_atoms(), restart, solver="lm")


@pytest.mark.parametrize(
    "others",
    [
        graphite().to_atoms(),
        orthorhombic().to_atoms().repeat((1, 1, 2)),
        [orthorhombic().to_atoms(), graphite().to_atoms()],
    ],
)
def test_a_file_of_other_crystals(restart, others):
    optimizer(orthorhombic().to_atoms(), restart).run(steps=2)
    with pytest.raises(RestartError, match=r"does not fit these crystals .*: delete the restart"):
        optimizer(others, restart)


def test_a_file_of_another_crystal_with_the_same_atoms(restart):
    """The atoms must not silently turn into those of an old file."""
    optimizer(puckered(0.02).to_atoms(), restart).run(steps=2)
    other = graphite().to_atoms()
    before = other.copy()
    with pytest.raises(RestartError, match="is another structure"):
        optimizer(other, restart)
    assert np.array_equal(other.positions, before.positions)
    assert np.array_equal(other.cell, before.cell)


@pytest.mark.parametrize("missing", ["state", "frames", "failures", "solver"])
def test_a_damaged_file(restart, missing):
    optimizer(orthorhombic().to_atoms(), restart).run(steps=2)
    data = read_json(restart, always_array=False)
    del data[missing]
    write_json(restart, data)
    with pytest.raises(RestartError, match="delete the restart file"):
        optimizer(orthorhombic().to_atoms(), restart)


def test_a_list_of_nothing_but_failures(restart):
    with pytest.raises(CrystalError, match="nothing to refine"):
        optimizer([Atoms("C"), Atoms("C2", positions=np.eye(3)[:2])], restart)
