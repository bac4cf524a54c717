"""A list of Atoms: one optimizer, one status each, nobody stops for a broken member."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter, StrainFilter
from ase.io import read
from optimize_cases import graphite, orthorhombic, puckered

from asexlatent.optimize import Status, SymmetricDescriptorOptimizer


def optimizer(atoms, **options) -> SymmetricDescriptorOptimizer:
    return SymmetricDescriptorOptimizer(atoms, **{"logfile": None, **options})


def broken_members() -> dict[str, Atoms]:
    nan = orthorhombic().to_atoms()
    nan.positions[2, 1] = np.nan
    flat = graphite().to_atoms()
    flat.cell[2] = flat.cell[0]
    coincident = graphite().to_atoms()
    coincident.positions[1] = coincident.positions[0]
    return {
        "not finite": nan,
        "not periodic along a, b, c": Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]),
        "contains Si, but environment sp2 has only C": bulk("Si"),
        "the cell has no volume": flat,
        "closer than symprec": coincident,
        "there are no atoms": Atoms(),
    }


def test_broken_members_keep_their_places_and_the_others_finish():
    broken = broken_members()
    images = [orthorhombic().to_atoms(), *broken.values(), puckered(0.02).to_atoms()]
    before = [atoms.copy() for atoms in images]
    opt = optimizer(images)
    assert opt.run(fmax=0.05, steps=200) is False
    assert opt.statuses == [Status.CONVERGED, *[Status.FAILED] * len(broken), Status.CONVERGED]
    for reason, words in zip(opt.reasons[1:-1], broken, strict=True):
        assert words in reason
    assert opt.reasons[0] == opt.reasons[-1] == ""
    assert np.isnan(opt.losses[1:-1]).all()
    assert np.isfinite(opt.losses[[0, -1]]).all()
    assert opt.converged_mask.tolist() == [True, *[False] * len(broken), True]
    assert opt.crystals[1:-1] == [None] * len(broken)
    for after, old in zip(images[1:-1], before[1:-1], strict=True):
        assert np.array_equal(after.positions, old.positions, equal_nan=True)
        assert np.array_equal(after.cell, old.cell)
        assert "asx_loss" not in after.info


def test_members_are_as_if_each_were_alone():
    images = [orthorhombic(k).to_atoms() for k in range(3)] + [graphite(2.38).to_atoms()]
    alone = [atoms.copy() for atoms in images]
    together = optimizer(images)
    assert together.run(fmax=0.05, steps=200) is True
    for atoms, other, loss in zip(images, alone, together.losses, strict=True):
        opt = optimizer(other)
        assert opt.run(fmax=0.05, steps=200) is True
        assert np.allclose(atoms.positions, other.positions, rtol=0, atol=1e-8)
        assert np.allclose(atoms.cell, other.cell, rtol=0, atol=1e-8)
        assert opt.losses[0] == pytest.approx(loss, abs=1e-12)
        assert other.info["asx_loss"] == pytest.approx(atoms.info["asx_loss"], abs=1e-12)


def test_a_step_of_a_trajectory_is_one_frame_of_each(tmp_path):
    images = [orthorhombic().to_atoms(), Atoms("C"), puckered(0.02).to_atoms()]
    opt = optimizer(images, trajectory=tmp_path / "list.traj", solver="adam")
    opt.run(fmax=1e-9, steps=3)
    frames = read(tmp_path / "list.traj", ":")
    assert [len(frame) for frame in frames] == [8, 1, 4] * 4
    for frame, atoms in zip(frames[-3:], images, strict=True):
        assert np.allclose(frame.positions, atoms.positions)
    assert frames[-1].info["asx_loss"] == pytest.approx(opt.losses[2])
    optimizer(images, trajectory=tmp_path / "list.traj", append_trajectory=True, solver="adam").run(
        fmax=1e-9, steps=1
    )
    assert len(read(tmp_path / "list.traj", ":")) == 5 * 3


def test_the_log_shows_the_mean_and_who_still_moves(tmp_path):
    images = [graphite().to_atoms(), orthorhombic().to_atoms(), Atoms("C")]
    opt = optimizer(images, logfile=tmp_path / "log")
    mean = np.nanmean(opt.losses)
    opt.run(fmax=0.05, steps=100)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[0] == ["Step", "Time", "Energy", "fmax", "Active"]
    assert float(lines[1][3]) == pytest.approx(mean, abs=1e-6)
    assert [int(line[-1]) for line in lines[1:]] == [1] * opt.nsteps + [0]


def test_filters_in_a_list():
    images = [orthorhombic().to_atoms() for _ in range(3)]
    before = [atoms.cell.array.copy() for atoms in images]
    targets = [images[0], FrechetCellFilter(images[1], mask=[0] * 6), StrainFilter(images[2])]
    opt = optimizer(targets)
    opt.run(fmax=0.05, steps=100)
    changed = [not np.allclose(a.cell, b) for a, b in zip(images, before, strict=True)]
    assert changed == [True, False, True]
    scaled = [atoms.get_scaled_positions(wrap=False) for atoms in images]
    fresh = orthorhombic().to_atoms().get_scaled_positions(wrap=False)
    assert [np.allclose(s, fresh, atol=1e-9) for s in scaled] == [False, False, True]


def test_a_repaired_member_is_taken_up_by_the_next_run():
    images = [orthorhombic().to_atoms(), graphite(2.4).to_atoms()]
    good = images[1].positions[0].copy()
    images[1].positions[0] = np.nan
    opt = optimizer(images)
    assert opt.run(fmax=0.05, steps=100) is False
    images[1].positions[0] = good
    assert opt.run(fmax=0.05, steps=100) is True
    assert opt.statuses == [Status.CONVERGED] * 2


def test_a_generator_and_a_tuple_are_lists():
    images = (graphite().to_atoms(), puckered(0.02).to_atoms())
    assert len(optimizer(images).statuses) == 2
    assert len(optimizer(atoms for atoms in images).statuses) == 2
