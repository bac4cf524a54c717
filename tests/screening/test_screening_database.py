from __future__ import annotations

import csv
import json
from pathlib import Path

import ase.db
import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from screening_cases import AA, DIAMOND, GRAPHITE, SRS, FakeRelaxer, disguised, volume

from asexlatent.screening import ScreenResult, screen


def result_of(*atoms, fake: FakeRelaxer | None = None, **options) -> ScreenResult:
    return screen(list(atoms), "sp2", (fake or FakeRelaxer()).relaxer(), **options)


@pytest.fixture(scope="module")
def result() -> ScreenResult:
    marked = SRS.to_atoms()
    marked.info |= {"asx_round": 1, "asx_path": "latent", "asx_source": "7"}
    fake = FakeRelaxer(turned={191: DIAMOND})
    return result_of(GRAPHITE, AA, DIAMOND, marked, disguised(SRS.to_atoms()), fake=fake)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_row_for_each_distinct_crystal(result, tmp_path):
    result.write(tmp_path)
    with ase.db.connect(tmp_path / "ranked.db") as database:
        rows = list(database.select(sort="rank"))
    assert [row.rank for row in rows] == [1, 2, 3]
    assert [row.source_index for row in rows] == [3, 0, 1]  # the one that lost its motif last
    best = rows[0]
    assert best.energy / best.natoms == pytest.approx(best.energy_per_atom)
    assert best.energy_per_atom == pytest.approx(volume(SRS))
    assert best.energy_per_atom - best.above_reference == pytest.approx(volume(GRAPHITE))
    assert (best.space_group, best.wyckoffs, best.net, best.dimension) == (214, "8a", "srs", 3)
    assert (best.net_relaxed, best.dimension_relaxed, best.valid_relaxed) == ("srs", 3, True)
    assert (best.round, best.path, best.potential) == (1, "latent", "volume per atom")
    assert best.n_duplicates == 1
    assert best.data["duplicates"] == [{"index": 4, "source": "", "by": "net"}]
    assert best.data["source"] == "7"  # which ASE takes for a number among the pairs
    assert best.data["settings"]["emax"] == 0.55
    assert best.data["candidate"]["space_group"] == 214
    assert rows[2].net_relaxed == "dia"
    assert not rows[2].valid_relaxed
    density = 8 * 12.011 / SRS.volume * 1.66054
    assert best.density_relaxed == pytest.approx(density, rel=1e-4)


def test_structures_are_those_relaxed(result, tmp_path):
    from pymatgen.io.ase import AseAtomsAdaptor

    result.write(tmp_path, top=2)
    cifs = sorted((tmp_path / "cif").iterdir())
    assert [path.name for path in cifs] == ["0001_C8_214_srs.cif", "0002_C4_194_2xhcb.cif"]
    matcher = StructureMatcher(scale=False, ltol=1e-3, stol=1e-3, angle_tol=0.1)
    database = ase.db.connect(tmp_path / "ranked.db")
    for path, made, rank in zip(cifs, (SRS, GRAPHITE), (1, 2), strict=True):
        from_cif = Structure.from_file(path)
        assert matcher.fit(from_cif, made.to_structure())
        stored = AseAtomsAdaptor.get_structure(database.get(rank=rank).toatoms())
        assert matcher.fit(from_cif, stored)


def test_tables_and_summary(result, tmp_path):
    result.write(tmp_path)
    ranked, every = rows_of(tmp_path / "ranked.csv"), rows_of(tmp_path / "screened.csv")
    assert [row["rank"] for row in ranked] == ["1", "2", "3"]
    assert [row["index"] for row in every] == list("01234")
    assert [row["status"] for row in every] == [
        "ranked", "ranked", "invalid", "ranked", "duplicate",
    ]  # fmt: skip
    assert every[4]["duplicate_of"] == "3"
    assert "neighbour" in every[2]["reason"]
    said = json.loads((tmp_path / "summary.json").read_text())
    assert said["counts"] == result.counts
    counts = said["counts"]
    assert (counts["N_valid_env"], counts["N_unique"], counts["N_lowE"]) == (4, 3, 3)
    assert said["references"]["C"]["name"] == "graphite"
    assert said["settings"]["tolerances"] == {
        "ltol": 0.2, "stol": 0.3, "angle_tol": 5.0, "scale": False,
    }  # fmt: skip


def test_writing_again_adds_nothing(result, tmp_path):
    for _ in range(2):
        result.write(tmp_path)
    assert ase.db.connect(tmp_path / "ranked.db").count() == 3
    smaller = result_of(SRS)
    smaller.write(tmp_path, top=1)
    assert ase.db.connect(tmp_path / "ranked.db").count() == 1
    assert len(list((tmp_path / "cif").iterdir())) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"ranked.db", "ranked.csv", "screened.csv", "summary.json", "cif"}


def test_a_kill_while_writing_leaves_the_old_database(result, tmp_path, monkeypatch):
    result.write(tmp_path)
    before = (tmp_path / "ranked.db").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("asexlatent.screening.database._key_values", killed)
    with pytest.raises(KeyboardInterrupt):
        result.write(tmp_path)
    assert (tmp_path / "ranked.db").read_bytes() == before
    monkeypatch.undo()
    result.write(tmp_path)  # what is left of the broken attempt is in nobody's way
    assert ase.db.connect(tmp_path / "ranked.db").count() == 3


def test_own_files_in_the_folder_of_cifs_are_left(result, tmp_path):
    (tmp_path / "cif").mkdir()
    own = tmp_path / "cif" / "mine.cif"
    own.write_text("data_mine\n")
    result.write(tmp_path)
    assert own.read_text() == "data_mine\n"


def test_table_on_the_terminal(result):
    text = result.table(top=5)
    lines = text.splitlines()
    assert lines[1].split()[:2] == ["N_valid_env", "4"]
    assert [line.split()[0] for line in lines if line[:4].strip().isdigit()] == ["1", "2"]
    assert "1 of them lost the motif" in text


def test_no_crystal_at_all(tmp_path):
    result_of(DIAMOND).write(tmp_path)
    assert ase.db.connect(tmp_path / "ranked.db").count() == 0
    assert rows_of(tmp_path / "ranked.csv") == []
    assert not list((tmp_path / "cif").iterdir())
    assert np.isnan(result_of(DIAMOND).rows[0].energy)
