from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from screening_cases import (
    AA,
    DIAMOND,
    GRAPHITE,
    SRS,
    FakeRelaxer,
    crystal,
    disguised,
    swollen,
    volume,
)

from asexlatent.descriptor import LocalEnvironment
from asexlatent.parallel import LocalWorkers
from asexlatent.screening import screen
from asexlatent.screening.pipeline import ScreenRun
from asexlatent.symmetry import CrystalError


def benzene_like() -> Atoms:
    """A finite ring of three-coordinated carbon: a cube of them, valid by the rule alone."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * 1.45
    return Atoms("C8", corners + 2, cell=[8, 8, 8], pbc=True)


def run(atoms, fake=None, **options):
    return screen(atoms, "sp2", (fake or FakeRelaxer()).relaxer(), **options)


def statuses(result) -> list[str]:
    return [row.status for row in result.rows]


def test_one_row_for_everything_whatever_it_is():
    broken = GRAPHITE.to_atoms()
    broken.positions[0] = math.nan
    unfinished = GRAPHITE.to_atoms()
    unfinished.info |= {"asx_status": "failed", "asx_reason": "no such group"}
    flat = GRAPHITE.to_atoms()
    flat.pbc = (True, True, False)
    atoms = [
        SRS.to_atoms(),
        Atoms(),
        broken,
        unfinished,
        flat,
        CrystalError("cannot be read: nothing there"),
        bulk("Si"),
        molecule("C6H6"),
        DIAMOND.to_atoms(),
        benzene_like(),
        GRAPHITE,
    ]
    result = run(atoms)
    assert [row.index for row in result.rows] == list(range(len(atoms)))
    expected = ["ranked", *["failed"] * 7, "invalid", "invalid", "ranked"]
    assert statuses(result) == expected
    assert all(row.reason for row in result.rows if row.status in ("failed", "invalid"))
    assert result.rows[3].reason == "not refined: no such group"
    assert "molecules" in result.rows[9].reason
    counts = result.counts
    assert (counts["failed"], counts["invalid"], counts["N_valid_env"]) == (7, 2, 2)
    assert counts["N_unique"] == 2


def test_copies_are_found_by_net_and_the_lowest_loss_stays():
    bad, good = swollen(SRS, 1.05), disguised(SRS.to_atoms())
    result = run([bad, GRAPHITE.to_atoms(), good, disguised(swollen(SRS, 0.97))])
    losses = [row.loss for row in result.rows]
    best = int(np.argmin([losses[0], math.inf, losses[2], losses[3]]))
    assert result.rows[best].status == "ranked"
    for place in {0, 2, 3} - {best}:
        row = result.rows[place]
        assert (row.status, row.duplicate_of, row.duplicate_by) == ("duplicate", best, "net")
    assert result.rows[best].duplicates == 2
    assert result.counts["duplicates_net"] == 2
    assert result.counts["relaxations"] == 2


def test_losses_are_those_of_the_descriptor():
    from asexlatent.optimize import refine

    result = run([GRAPHITE, SRS])
    expected = [r.loss_initial for r in refine([GRAPHITE, SRS], "sp2", steps=0)]
    assert [row.loss for row in result.rows] == pytest.approx(expected, abs=1e-10)
    assert result.rows[0].loss < 1e-6  # the target is graphite itself


def test_energies_rank_and_reference():
    result = run([AA, GRAPHITE, SRS], emax=0.5)
    energies = [volume(AA), volume(GRAPHITE), volume(SRS)]
    assert [row.energy for row in result.rows] == pytest.approx(energies)
    order = np.argsort(energies).tolist()
    assert [row.index for row in result.ranked] == order
    assert [row.rank for row in result.ranked] == [1, 2, 3]
    assert result.references["C"].name == "graphite"
    assert result.references["C"].energy == pytest.approx(volume(GRAPHITE))
    above = np.array(energies) - volume(GRAPHITE)
    assert [row.above_reference for row in result.rows] == pytest.approx(above)
    assert result.counts["N_lowE"] == sum(above <= 0.5)
    assert run([AA, SRS], reference="lowest").references["C"].energy == pytest.approx(volume(SRS))
    assert run([AA], reference=1.5).rows[0].above_reference == pytest.approx(volume(AA) - 1.5)


def test_lowest_is_the_reference_where_graphite_fails():
    fake = FakeRelaxer(failing=(194,))
    result = run([AA, SRS], fake)
    assert result.references["C"].name == "lowest"
    assert "exploded" in result.references["C"].note


def test_a_crystal_that_loses_its_motif_is_ranked_last_and_says_so():
    fake = FakeRelaxer(turned={191: DIAMOND})
    result = run([AA, GRAPHITE, SRS], fake)
    row = result.rows[0]
    assert row.energy == min(r.energy for r in result.rows)
    assert (row.valid, row.valid_relaxed, row.rank) == (True, False, 3)
    assert (row.net, row.net_relaxed) == ("hcb", "dia")
    assert (row.dimension, row.dimension_relaxed) == (2, 3)
    assert (result.counts["N_unique"], result.counts["N_unique_motif_kept"]) == (3, 2)


def test_what_relaxes_to_the_same_crystal_is_one():
    turned = crystal(166, (2.47, 6.72 * 1.5), ("c", [1 / 6]))
    fake = FakeRelaxer(turned={214: GRAPHITE.with_free_variables([2.47, 6.72])})
    result = run([SRS, GRAPHITE, turned], fake)
    assert statuses(result) == ["duplicate", "ranked", "ranked"]
    assert (result.rows[0].duplicate_of, result.rows[0].duplicate_by) == (1, "structure")
    assert result.counts["duplicates_structure"] == 1
    # a candidate of the same net as the one that went away points to what stands for both
    again = run([SRS, disguised(SRS.to_atoms()), GRAPHITE], fake)
    assert [row.duplicate_of for row in again.rows] == [2, 2, None]
    assert again.rows[2].duplicates == 2


def test_a_failing_crystal_costs_itself_only():
    for fake in (FakeRelaxer(broken=(191,)), FakeRelaxer(failing=(191,))):
        result = run([SRS, AA, GRAPHITE], fake)
        assert statuses(result) == ["ranked", "failed", "ranked"]
        assert result.rows[1].reason.startswith("relaxation: ")
        assert result.counts["relaxations_failed"] == 1


def test_the_next_of_the_same_net_takes_the_place_of_a_failed_one():
    other = crystal(166, (2.46, 10.05), ("c", [1 / 6]))  # hcb as well, one layer per primitive cell
    fake = FakeRelaxer(broken=(166,))
    result = run([other, swollen(AA, 1.01), SRS], fake)
    assert statuses(result) == ["failed", "ranked", "ranked"]
    everything = FakeRelaxer(broken=(166, 191, 194, 214))
    result = run([other, swollen(AA, 1.01), SRS], everything)
    assert statuses(result) == ["failed", "duplicate", "failed"]
    assert result.counts["N_unique"] == 0


def test_without_the_first_search_stackings_stay_apart():
    rhombohedral = crystal(166, (2.46, 10.05), ("c", [1 / 6]))
    assert run([AA, rhombohedral]).counts["N_unique"] == 1
    result = run([AA, rhombohedral, disguised(AA.to_atoms())], net_duplicates=False)
    assert result.counts["N_unique"] == 2
    assert result.rows[2].duplicate_of == 0 or result.rows[0].duplicate_of == 2


def test_energies_that_are_no_numbers_have_failed():
    class Silent(FakeRelaxer):
        def __call__(self, crystals):
            found = super().__call__(crystals)
            for item in found:
                item.energy = math.inf
            return found

    result = run([SRS], Silent())
    assert statuses(result) == ["failed"]
    assert "no finite energy" in result.rows[0].reason


def test_interrupted_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("asexlatent.screening.pipeline.RELAXED_TOGETHER", 2)
    atoms = [AA.to_atoms(), GRAPHITE.to_atoms(), SRS.to_atoms(), disguised(SRS.to_atoms())]
    part = FakeRelaxer(stop_after=3)  # the reference is one of them
    result = run(atoms, part, folder=tmp_path)
    assert statuses(result)[:3] == ["ranked", "ranked", "pending"]
    assert result.counts["pending"] == 1

    rest = FakeRelaxer()
    whole = run(atoms, rest, folder=tmp_path)
    assert [made.space_group for made in rest.asked] == [214]
    again = FakeRelaxer()
    repeated = run(atoms, again, folder=tmp_path)
    assert again.asked == []
    fresh = run(atoms, FakeRelaxer())
    for other in (repeated, fresh):
        assert [r.values() for r in whole.rows] == [r.values() for r in other.rows]
    # what was made with other settings is left alone
    other = FakeRelaxer(name="another calculator")
    run(atoms, other, folder=tmp_path)
    assert len(other.asked) == 4


def test_a_damaged_chunk_is_made_again(tmp_path: Path):
    run([AA, SRS], folder=tmp_path)
    for path in tmp_path.glob("relaxed-*.json"):
        path.write_text("{half")
    fake = FakeRelaxer()
    assert statuses(run([AA, SRS], fake, folder=tmp_path)) == ["ranked", "ranked"]
    assert len(fake.asked) == 3  # graphite, the reference, too


def test_progress_and_provenance():
    atoms = GRAPHITE.to_atoms()
    atoms.info |= {"asx_round": 2, "asx_path": "latent", "asx_source": "a.csv@7"}
    seen = []
    environment = LocalEnvironment.named("sp2")
    result = screen([atoms, SRS], environment, FakeRelaxer().relaxer(), progress=seen.append)
    row = result.rows[0]
    assert (row.round, row.path, row.source) == (2, "latent", "a.csv@7")
    assert [s.stage for s in seen] == ["nets", "relaxations", "matching", "matching"]
    assert all(s.done <= s.total == 2 for s in seen)
    assert result.calculator == "volume per atom"


def test_rounds_count_from_the_first_that_found_a_crystal():
    atoms = [swollen(SRS, 1.04), SRS.to_atoms(), GRAPHITE.to_atoms()]
    for number, frame in enumerate(atoms):
        frame.info["asx_round"] = number
    rows = run(atoms, emax=0.1).rounds()
    assert [r["N_valid_env"] for r in rows] == [1, 2, 3]
    assert [r["N_unique"] for r in rows] == [1, 1, 2]
    assert rows[-1]["N_lowE"] == run(atoms, emax=0.1).counts["N_lowE"]


@pytest.mark.parametrize("bad", [{"emax": -1}, {"reference": "diamond"}, {"reference": math.nan}])
def test_settings_that_cannot_be(bad):
    with pytest.raises(ValueError, match="must"):
        ScreenRun([], "sp2", FakeRelaxer().relaxer(), **bad)


def test_nothing_to_screen():
    result = run([])
    assert result.counts["candidates"] == 0
    assert result.ranked == []
    assert "N_unique" in result.table()


@pytest.mark.slow
def test_in_other_processes(tmp_path: Path):
    atoms = [SRS.to_atoms(), AA.to_atoms(), GRAPHITE.to_atoms(), DIAMOND.to_atoms()]
    workers = LocalWorkers(2)
    try:
        result = run(atoms, executor=workers, folder=tmp_path)
    finally:
        workers.kill()
    assert [r.values() for r in result.rows] == [r.values() for r in run(atoms).rows]


@pytest.mark.slow
def test_a_crystal_that_kills_its_process(tmp_path: Path):
    workers = LocalWorkers(1)
    try:
        result = run([SRS, AA, GRAPHITE], FakeRelaxer(deadly=(191,)), executor=workers)
    finally:
        workers.kill()
    assert statuses(result) == ["ranked", "failed", "ranked"]
    assert "died" in result.rows[1].reason
