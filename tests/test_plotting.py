from __future__ import annotations

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asexlatent.descriptor import LocalEnvironment
from asexlatent.plotting import plot_convergence, plot_losses, plot_spectra
from asexlatent.symmetry import SymmetricCrystal

GRAPHITE = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "b", []), ("C", "c", [])])
ANCHOR = [
    16.6991, 0, 2.1774, 1.7963, 0.0970, -1.9715, 0, -0.6192, -0.6351, -0.0398, 0.2328, 0,
    0.1761, 0.2246, 0.0163,
]  # fmt: skip


@pytest.fixture(scope="module")
def sp2() -> LocalEnvironment:
    return LocalEnvironment.named("sp2")


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {
        line.get_label(): np.asarray(line.get_ydata())
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def test_spectra_are_those_of_graphite(sp2):
    swollen = GRAPHITE.with_free_variables([2.9, 6.7])
    last = plot_spectra(swollen, GRAPHITE, sp2)
    first = last.figure.axes[0]
    assert last.figure.axes == [first, last]
    drawn = lines(last)
    assert list(drawn) == ["C1 2b", "C2 2c", "target sp2"]
    for values in drawn.values():
        assert np.allclose(values, ANCHOR, atol=2e-4)
    assert not np.allclose(lines(first)["C1 2b"], ANCHOR, atol=0.1)
    assert np.allclose(lines(first)["target sp2"], ANCHOR, atol=2e-4)
    labels = [text.get_text() for text in last.get_xticklabels()]
    assert labels[:6] == ["1 1 0", "1 1 1", "1 1 2", "1 1 3", "1 1 4", "2 1 0"]
    assert labels[-1] == "2 2 4"
    assert first.get_title(loc="left").startswith("before: loss ")
    assert first.lines[0].get_linestyle() == "-"
    assert {line.get_linestyle() for line in last.lines if line.get_label() == "target sp2"} == {
        "--"
    }


def test_loss_in_the_title_is_eq_1(sp2):
    from asexlatent import refine

    swollen = GRAPHITE.with_free_variables([2.9, 6.7])
    (result,) = refine([swollen], sp2, steps=0)
    title = plot_spectra(swollen, GRAPHITE, sp2).figure.axes[0].get_title(loc="left")
    assert title == f"before: loss {result.loss_initial:.3g}"


def test_atoms_with_equal_spectra_share_a_line(sp2):
    atoms = GRAPHITE.to_atoms().repeat((2, 1, 1))
    rattled = atoms.copy()
    rattled.positions[0] += 0.2
    axes = plot_spectra(atoms, rattled, sp2).figure.axes
    assert list(lines(axes[0])) == ["C1 (8 atoms)", "target sp2"]
    assert len(lines(axes[1])) > 3
    assert sum(line.get_label().startswith("C") for line in axes[1].lines) <= 9


def test_one_panel_and_the_users_own_axes(sp2):
    figure = Figure()
    ax = figure.subplots()
    assert plot_spectra(GRAPHITE, GRAPHITE, sp2, ax) is ax
    assert sorted(lines(ax)) == [
        "after, C1 2b",
        "after, C2 2c",
        "before, C1 2b",
        "before, C2 2c",
        "target sp2",
    ]
    assert len(ax.get_legend().get_texts()) == 5
    pair = list(figure.subplots(1, 2))
    assert plot_spectra(GRAPHITE, GRAPHITE, sp2, pair) is pair[1]
    with pytest.raises(ValueError, match="one or two Axes, not 3"):
        plot_spectra(GRAPHITE, GRAPHITE, sp2, list(figure.subplots(1, 3)))


def test_compounds_show_the_targets_of_their_species():
    quartz = LocalEnvironment.named("SiO4")
    atoms = bulk("SiC", "zincblende", a=4.36)
    atoms.symbols[1] = "O"
    drawn = lines(plot_spectra(atoms, atoms, quartz))
    assert any(name.startswith("target SiO4 (Si)") for name in drawn)
    only = bulk("Si")
    assert not any("(O)" in name for name in lines(plot_spectra(only, only, quartz)))


def test_many_sites_have_a_short_legend(sp2):
    rng = np.random.default_rng(0)
    atoms = Atoms("C30", scaled_positions=rng.random((30, 3)), cell=[5, 5, 5], pbc=True)
    legend = plot_spectra(atoms, atoms, sp2).get_legend()
    assert legend.get_title().get_text() == "and 23 more sites"
    assert len(legend.get_texts()) == 8


def test_molecules_have_no_images(sp2):
    pair = Atoms("C2", positions=[(0, 0, 0), (1.4, 0, 0)])
    boxed = Atoms("C2", positions=pair.positions, cell=[9, 9, 9], pbc=True)
    axes = plot_spectra(pair, boxed, sp2).figure.axes
    assert np.allclose(lines(axes[0])["C1 (2 atoms)"], lines(axes[1])["C1 (2 atoms)"])


def test_losses_are_counted_once():
    rng = np.random.default_rng(1)
    before, after = 10 ** rng.normal(1, 0.5, 300), 10 ** rng.normal(-2, 1, 300)
    after[:7], after[7:9] = np.nan, 0.0
    ax = plot_losses(before, after)
    assert ax.get_xscale() == "log"
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[0] == f"before (300, median {np.median(before):.2g})"
    assert names[1].startswith("after (293, median ")
    assert names[1].endswith(", 7 failed)")
    for patch, total in zip(ax.patches, (300, 293), strict=True):
        heights = patch.get_xy()[:, 1]
        steps = heights[1:-1:2]  # the outline goes up and down again: half of it is enough
        assert steps.max() <= total
    edges = np.unique(ax.patches[0].get_xy()[:, 0])
    assert np.allclose(np.diff(np.log(edges)), np.diff(np.log(edges))[0])


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [np.nan]])
def test_losses_of_hardly_anything(values):
    plot_losses(values, values).figure.savefig(io.BytesIO())


def test_convergence_from_everything(tmp_path):
    series = 10 ** np.linspace(1, -3, 20)
    assert np.allclose(plot_convergence(series).lines[0].get_ydata(), series)
    many = plot_convergence(np.outer(series, [1.0, 2.0, 3.0]))
    assert np.allclose(many.lines[0].get_ydata(), 2 * series)
    named = plot_convergence({"adam": series, "lm": series[:5] ** 2})
    assert [text.get_text() for text in named.get_legend().get_texts()] == ["adam", "lm"]
    frames = [bulk("C") for _ in series]
    for frame, loss in zip(frames, series, strict=True):
        frame.info["asx_loss"] = loss
    write(tmp_path / "run.traj", frames)
    for source in (frames, tmp_path / "run.traj", str(tmp_path / "run.traj")):
        assert np.allclose(plot_convergence(source).lines[0].get_ydata(), series)
    log = tmp_path / "log"
    log.write_text(
        "      Step     Time          Energy          fmax\n"
        "Opt:      0 12:00:00        9.500000        3.1\n"
        "Opt:      1 12:00:01        1.250000        0.1\n"
    )
    assert np.allclose(plot_convergence(log).lines[0].get_ydata(), [9.5, 1.25])


def test_convergence_from_the_optimizers_own_log(tmp_path):
    from asexlatent import SymmetricDescriptorOptimizer

    atoms = GRAPHITE.with_free_variables([2.7, 6.7]).to_atoms()
    SymmetricDescriptorOptimizer(atoms, logfile=str(tmp_path / "log")).run(fmax=1e-6, steps=4)
    drawn = plot_convergence(tmp_path / "log").lines[0].get_ydata()
    assert len(drawn) == 5
    assert drawn[-1] == pytest.approx(atoms.info["asx_loss"], abs=1e-6)


def test_convergence_without_losses(tmp_path):
    (tmp_path / "x").write_text("nothing here")
    with pytest.raises(ValueError, match="neither a trajectory nor the log"):
        plot_convergence(tmp_path / "x")
    with pytest.raises(ValueError, match="no asx_loss"):
        plot_convergence([bulk("C")])
    with pytest.raises(ValueError, match="shape"):
        plot_convergence([])


def test_no_global_state_is_touched(sp2, tmp_path):
    before = dict(matplotlib.rcParams)
    plot_spectra(GRAPHITE, GRAPHITE, sp2)
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, numpy as np\n"
        "from asexlatent.plotting import plot_losses\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "plot_losses([1, 2], [0.1, 3]).figure.savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {"MPLBACKEND": "tkagg", "PATH": "/usr/bin", "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
