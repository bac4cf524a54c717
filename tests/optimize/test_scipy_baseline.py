"""SciPy on one crystal at a time: the opponents work, and are what they claim to be."""

from __future__ import annotations

import pytest
import torch
from optimize_cases import orthorhombic, puckered

from asexlatent import DescriptorLoss, refine
from asexlatent.optimize import BASELINES, CrystalBatch, SymmetricDescriptorOptimizer
from asexlatent.symmetry import CrystalError


@pytest.mark.parametrize("solver", sorted(BASELINES))
def test_the_loss_falls_and_belongs_to_the_crystal(solver, sp2):
    crystals = [puckered(0.04), CrystalError("unreadable"), orthorhombic(strain=0.01)]
    results = refine(crystals, sp2, solver=solver, steps=25)
    assert [str(r.status) == "failed" for r in results] == [False, True, False]
    for result in (results[0], results[2]):
        assert result.loss < result.loss_initial
        batch = CrystalBatch.from_crystals([result.crystal])
        again = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables).value.item()
        assert again == pytest.approx(result.loss, rel=1e-6)
        assert result.steps > 5


@pytest.mark.slow
def test_processes_change_nothing(sp2):
    crystals = [puckered(0.04), puckered(0.06)]
    alone = refine(crystals, sp2, solver="scipy-lbfgsb", steps=5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = refine(crystals, sp2, solver="scipy-lbfgsb", steps=5)
    finally:
        torch.set_num_threads(threads)
    assert [r.loss for r in together] == pytest.approx([r.loss for r in alone], rel=1e-9)


def test_interrupted_keeps_what_is_done(sp2):
    def stop(progress):
        raise KeyboardInterrupt

    crystals = [puckered(0.04), puckered(0.06)]
    first, second = refine(crystals, sp2, solver="scipy-lbfgsb", steps=5, progress=stop)
    assert first.steps > 0
    assert str(second.status) == "step_limit"
    assert second.loss == second.loss_initial


def test_the_ase_face_refuses_them_by_name():
    with pytest.raises(ValueError, match=r"scipy-lbfgsb works in refine\(\) only"):
        SymmetricDescriptorOptimizer(puckered().to_atoms(), solver="scipy-lbfgsb", logfile=None)
