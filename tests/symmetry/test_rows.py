"""Rows: right ones come back as they were, broken ones say what is wrong."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry_cases import assert_same_atoms, make_crystal

from asexlatent.symmetry import (
    TABLE_COLUMNS,
    CrystalError,
    SymmetricCrystal,
    from_row,
    read_table,
    wyckoff_positions,
)

CANDIDATES = Path(__file__).parents[3] / "shared" / "data" / "candidates.csv"


def graphite_row(**changes) -> dict[str, float]:
    crystal = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "2b", []), ("C", "2c", [])])
    return {**crystal.to_row(), **changes}


def write_table(path, rows, columns=TABLE_COLUMNS):
    lines = [",".join(columns)]
    lines += [",".join(str(row[name]) for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


# ------------------------------------------------------------------ round trip


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_all_groups_come_back(seed):
    for group in range(1, 231):
        crystal = make_crystal(group, np.random.default_rng([seed, group]))
        row = crystal.to_row()
        assert tuple(row) == TABLE_COLUMNS
        back = from_row(row, species=[site.species for site in crystal.sites])
        assert back.wyckoffs == crystal.wyckoffs
        assert back.projection.max_distance < 1e-9
        assert not back.projection.cell_change
        assert back.free_variables == pytest.approx(crystal.free_variables, abs=1e-12)
        assert_same_atoms(crystal.to_atoms(), back.to_atoms())


def test_any_atom_of_the_orbit_may_stand_in_the_row():
    for group in (14, 62, 152, 166, 194, 225, 230):
        crystal = make_crystal(group, np.random.default_rng(group), n_sites=2)
        row = crystal.to_row()
        for slot, site in enumerate(crystal.sites):
            atom = site.expand()[-1] + [2, -3, 1]
            row.update({f"x{slot}": atom[0], f"y{slot}": atom[1], f"z{slot}": atom[2]})
        back = from_row(row, species=[site.species for site in crystal.sites])
        assert back.projection.max_distance < 1e-9
        assert_same_atoms(crystal.to_atoms(), back.to_atoms())


def test_coordinates_are_wrapped_not_clamped():
    row = SymmetricCrystal.build(1, (5, 6, 7, 1.5, 1.6, 1.7), [("C", 0, (0.1, 0.2, 0.3))]).to_row()
    crystal = from_row({**row, "x0": -0.02, "y0": 1.98, "z0": -1e-18})
    assert crystal.sites[0].free == pytest.approx([0.98, 0.98, 0.0])


def test_degrees_are_an_explicit_choice():
    row = graphite_row(alpha=90, beta=90, gamma=120)
    with pytest.raises(CrystalError, match="degrees"):
        from_row(row)
    assert from_row(row, degrees=True).cell_free == pytest.approx([2.46, 6.7])


def test_text_is_as_good_as_numbers():
    row = {name: str(float(value)) for name, value in graphite_row().items()}
    assert from_row(row).wyckoffs == ["2b", "2c"]


# ------------------------------------------------------------------ projection


def test_distances_are_in_angstrom_of_the_cell_of_the_row():
    # 6h of P6_3/mmc is (x, 2x, 1/4): moving z alone moves an atom by c dz
    crystal = SymmetricCrystal.build(194, (5.0, 8.0), [("C", "6h", 0.13)])
    row = crystal.to_row()
    back = from_row({**row, "z0": 0.25 + 0.01})
    assert back.projection.distances == pytest.approx([0.08])
    assert back.projection.slots == (0,)
    assert back.sites[0].free == pytest.approx([0.13])


def test_the_cell_is_brought_to_the_lattice_system_and_says_by_how_much():
    crystal = from_row(graphite_row(a=2.40, b=2.50, gamma=2.1))
    assert crystal.cell_free == pytest.approx([2.45, 6.7])
    change = crystal.projection.cell_change
    assert set(change) == {"a", "b", "gamma"}
    assert change["a"] == pytest.approx(0.05)
    assert change["b"] == pytest.approx(-0.05)
    assert change["gamma"] == pytest.approx(2 * math.pi / 3 - 2.1)


def test_projection_survives_a_change_of_variables():
    crystal = from_row(graphite_row(a=2.40))
    moved = crystal.with_free_variables(crystal.free_variables + 0.01)
    assert moved.projection is crystal.projection


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spg": 0}, "space group 0 does not exist"),
        ({"spg": 231}, "space group 231 does not exist"),
        ({"spg": 194.5}, "column spg is not a whole number"),
        ({"spg": "P6"}, "column spg is not a number: 'P6'"),
        ({"spg": math.nan}, "column spg is nan"),
        ({"a": 0, "b": 0}, "a = 0 Å is not positive"),
        ({"c": -6.7}, "c = -6.7"),
        ({"c": 1e300}, "c = 1e+300 Å is not that of a crystal"),
        ({"a": 1e-4, "b": 1e-4}, "a = 0.0001 Å is not that of a crystal"),
        ({"y1": 1e30}, "site 1 has the coordinate 1e+30"),
        ({"c": math.inf}, "column c is inf"),
        ({"beta": math.nan}, "column beta is nan"),
        ({"alpha": 0.1, "beta": 0.1, "gamma": 2.0}, "no volume"),
        ({"wp1": 99}, "site 1 has Wyckoff index 99; space group 194 has 0 to 11"),
        ({"wp1": -2}, "site 1 has Wyckoff index -2"),
        ({"wp1": 1.5}, "column wp1 is not a whole number"),
        ({"x1": "abc"}, "column x1 is not a number: 'abc'"),
        ({"x1": ""}, "column x1 is empty"),
        ({"y1": math.nan}, "column y1 is nan"),
        ({"x1": -1.0, "y1": -0.9998, "z1": -1.0}, "unused"),
        ({"y1": -0.93}, "unused"),
    ],
)
def test_a_broken_row_gives_its_reason(changes, words):
    with pytest.raises(CrystalError) as error:
        from_row(graphite_row(**changes))
    assert words in str(error.value)


NONSENSE = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-1.1, 1.1),
    st.integers(-3, 300),
    st.sampled_from(["", "x", "nan", "1e400", "-1", None, "0.5"]),
)


@given(st.dictionaries(st.sampled_from(TABLE_COLUMNS), NONSENSE, max_size=12))
@settings(max_examples=400, deadline=None)
def test_nonsense_gives_a_crystal_or_a_reason(changes):
    for bad_sites in ("fail", "drop"):
        try:
            crystal = from_row({**graphite_row(), **changes}, bad_sites=bad_sites)
        except CrystalError:
            continue
        else:
            assert np.isfinite(crystal.free_variables).all()
            assert np.isfinite(crystal.projection.distances).all()
            assert len(crystal.projection.distances) == crystal.n_sites > 0


def test_a_missing_column_is_named():
    row = graphite_row()
    del row["beta"]
    with pytest.raises(CrystalError, match="column beta is missing"):
        from_row(row)


def test_unused_sites_are_not_looked_at():
    row = graphite_row(x5="not a number", y6=math.nan, z7=-1e9)
    assert from_row(row).n_sites == 2
    assert from_row({**row, "wp7": "", "x7": "", "y7": None, "z7": ""}).n_sites == 2


def test_a_row_without_sites():
    with pytest.raises(CrystalError, match="no site"):
        from_row(graphite_row(wp0=-1, wp1=-1))


def test_a_fixed_point_cannot_be_taken_twice():
    row = graphite_row(wp1=graphite_row()["wp0"])
    with pytest.raises(CrystalError, match="sites 0 and 1 both sit on 2b"):
        from_row(row)
    crystal = from_row(row, bad_sites="drop")
    assert crystal.wyckoffs == ["2b"]
    assert crystal.projection.dropped[0][0] == 1


def test_bad_sites_are_left_out_and_listed_when_asked():
    row = graphite_row(wp2=99, x2=0.1, y2=0.1, z2=0.1, wp3=0, x3=-1, y3=-1, z3=-1)
    crystal = from_row(row, species=["C", "B", "N", "O"], bad_sites="drop")
    assert crystal.wyckoffs == ["2b", "2c"]
    assert [site.species for site in crystal.sites] == ["C", "B"]
    assert crystal.projection.slots == (0, 1)
    assert [number for number, _ in crystal.projection.dropped] == [2, 3]
    assert "Wyckoff index 99" in crystal.projection.dropped[0][1]
    with pytest.raises(CrystalError, match="no site is left: site 0"):
        from_row(graphite_row(wp0=99, wp1=98), bad_sites="drop")
    with pytest.raises(ValueError, match="bad_sites"):
        from_row(row, bad_sites="ignore")


def test_species():
    assert [s.species for s in from_row(graphite_row(), species=["B", "N"]).sites] == ["B", "N"]
    with pytest.raises(CrystalError, match="3 species were given for a row of 2 used sites"):
        from_row(graphite_row(), species=["B", "N", "C"])
    with pytest.raises(CrystalError, match="unknown chemical symbol 'Qq'"):
        from_row(graphite_row(), species="Qq")


def test_more_than_eight_sites_do_not_fit_but_are_read():
    sites = [("C", 0, (0.1 * k + 0.05, 0.2, 0.3)) for k in range(9)]
    crystal = SymmetricCrystal.build(1, (9, 6, 7, 1.5, 1.6, 1.7), sites)
    with pytest.raises(CrystalError, match="9 inequivalent sites and a table row holds at most 8"):
        crystal.to_row()
    row = SymmetricCrystal.build(1, (9, 6, 7, 1.5, 1.6, 1.7), sites[:8]).to_row()
    row.update({"wp8": 0, "x8": 0.85, "y8": 0.2, "z8": 0.3})
    assert from_row(row).n_sites == 9


# ------------------------------------------------------------------ tables


def test_a_table_is_read_by_column_name(tmp_path):
    columns = ["label", *reversed(TABLE_COLUMNS), "energy", "note"]
    rows = [{**graphite_row(), "label": 7, "energy": -9.25, "note": ""}] * 2
    found = list(read_table(write_table(tmp_path / "t.csv", rows, columns)))
    assert [row.index for row in found] == [0, 1]
    assert [row.line for row in found] == [2, 3]
    assert found[0].extra == {"label": "7", "energy": "-9.25", "note": ""}
    crystal = found[0].crystal()
    assert crystal.wyckoffs == ["2b", "2c"]
    assert crystal.info == {"label": 7, "energy": -9.25}


def test_a_broken_line_does_not_stop_the_others(tmp_path):
    path = write_table(tmp_path / "t.csv", [graphite_row()] * 3)
    lines = path.read_text().splitlines()
    lines[2] = "194,2.46"
    lines.insert(3, "")
    lines.append(lines[1] + ",1,2")
    lines.append(lines[1].replace("194", "999", 1))
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    rows = list(read_table(path))
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]
    assert [row.problem is None for row in rows] == [True, False, True, False, True]
    assert "2 fields in a line of a table with 39 columns" in rows[1].problem
    with pytest.raises(CrystalError, match="2 fields"):
        rows[1].crystal()
    with pytest.raises(CrystalError, match="999"):
        rows[4].crystal()


def test_a_table_with_fewer_sites_and_degrees(tmp_path):
    columns = TABLE_COLUMNS[:15]
    path = write_table(tmp_path / "t.csv", [graphite_row(alpha=90, beta=90, gamma=120)], columns)
    (row,) = read_table(path, degrees=True)
    assert row.crystal().cell_free == pytest.approx([2.46, 6.7])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "is empty"),
        ("a,b,c", "lacks the columns spg, alpha, beta, gamma, wp0"),
        (",".join(TABLE_COLUMNS[:-1]), "lacks the column z7"),
        (",".join(TABLE_COLUMNS) + ",a", "'a' more than once"),
    ],
)
def test_a_wrong_header_names_file_and_column(tmp_path, header, words):
    path = tmp_path / "wrong.csv"
    path.write_text(header + "\n" * bool(header))
    with pytest.raises(CrystalError) as error:
        read_table(path)  # at once, not on the first row
    assert words in str(error.value)
    assert "wrong.csv" in str(error.value)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError):
        read_table("/nowhere/table.csv")


@pytest.mark.skipif(not CANDIDATES.exists(), reason="needs the shared candidates")
def test_generated_candidates():
    """Nothing is lost: every row of a generative model is a crystal or has its reason."""
    failed = []
    for row in read_table(CANDIDATES):
        try:
            crystal = row.crystal()
        except CrystalError as problem:
            failed.append(str(problem))
        else:
            used = [n for n in range(8) if float(row.values[f"wp{n}"]) != -1]
            assert crystal.projection.slots == tuple(used)
            assert {"energy", "label"} <= set(crystal.info)
    assert 0 < len(failed) < 30
    assert all(row.crystal(bad_sites="drop").n_sites for row in read_table(CANDIDATES))


def test_rows_are_read_fast():
    rng = np.random.default_rng(0)
    rows = []
    for group in (12, 63, 139, 166, 194, 227):
        positions = wyckoff_positions(group)
        cell = make_crystal(group, rng, n_sites=1).to_row()
        for slot in range(8):
            position = next(p for p in positions[rng.integers(len(positions)) :: -1] if p.dof)
            x, y, z = rng.random(3)
            cell.update({f"wp{slot}": position.index, f"x{slot}": x, f"y{slot}": y, f"z{slot}": z})
        rows.append(cell)
    for row in rows:
        from_row(row)
    start = time.perf_counter()
    for row in rows:
        from_row(row)
    assert (time.perf_counter() - start) / len(rows) < 0.01  # about 1 ms; room for a busy machine
