from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes

from asexlatent.plotting import plot_energies, plot_energy_density, plot_rounds, plot_yields


def bars(ax: Axes, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and heights of a histogram, as they are drawn."""
    corners = ax.patches[number].get_xy()
    edges = np.unique(corners[:, 0].round(9))
    middles = (edges[1:] + edges[:-1]) / 2
    heights = []
    for x in middles:
        inside = [
            max(a[1], b[1])
            for a, b in itertools.pairwise(corners)
            if min(a[0], b[0]) - 1e-9 <= x <= max(a[0], b[0]) + 1e-9
        ]
        heights.append(max(inside))
    return edges, np.array(heights)


def row(energy: float, density: float, dimension: int, kept: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        above_reference=energy,
        density_relaxed=density,
        dimension_relaxed=dimension,
        valid_relaxed=kept,
    )


ROWS = [row(0.1, 2.2, 2), row(0.4, 2.0, 3), row(0.3, 1.5, 3), row(0.9, 3.4, 3, False)]
RESULT = SimpleNamespace(
    ranked=ROWS, counts={"N_valid_env": 9, "N_unique": 4, "N_lowE": 3}, rounds=lambda: []
)


def test_histograms_share_their_bins_and_are_counts():
    rng = np.random.default_rng(0)
    first, second = rng.normal(-8.5, 0.2, 300), rng.normal(-8.2, 0.4, 100)
    ax = plot_energies({"a": first, "b": [*second, math.nan]}, bins=20)
    both = np.concatenate((first, second))
    edges = np.linspace(both.min(), both.max(), 21)
    for number, values in enumerate((first, second)):
        drawn, heights = bars(ax, number)
        expected, _ = np.histogram(values, edges)
        assert np.allclose(drawn, edges)
        assert heights.sum() == len(values)
        assert np.array_equal(heights, expected)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["a (300)", "b (100)"]
    assert ax.get_xlabel() == "energy (eV/atom)"


def test_energies_of_a_result_are_above_its_reference():
    ax = plot_energies(RESULT, bins=[0.0, 0.25, 0.5, 1.0], emax=0.55)
    assert bars(ax, 0)[1].tolist() == [1, 2, 1]
    assert "above the reference" in ax.get_xlabel()
    assert ax.lines[0].get_xdata()[0] == 0.55
    assert ax.get_legend() is None


@pytest.mark.parametrize("energies", [[], [math.nan], [-8.0], [-8.0, -8.0]])
def test_few_energies(energies):
    ax = plot_energies(energies)
    assert bars(ax, 0)[1].sum() == sum(math.isfinite(e) for e in energies)


def test_yields_are_bars_with_numbers():
    other = {"N_valid_env": 5, "N_unique": 2, "N_lowE": 0}
    ax = plot_yields({"CVAE": RESULT, "VAE": other})
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [9, 4, 3, 5, 2, 0]
    assert [text.get_text() for text in ax.texts] == ["9", "4", "3", "5", "2", "0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["N_valid_env", "N_unique", "N_lowE"]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert np.allclose(np.add(centres[:3], centres[3:]) / 2, [0, 1, 2])
    assert plot_yields({"": RESULT}).get_legend() is None


def test_rounds():
    rows = [
        {"round": 0, "N_valid_env": 3, "N_unique": 2, "N_lowE": 1},
        {"round": 2, "N_valid_env": 5, "N_unique": 4, "N_lowE": 1},
    ]
    ax = plot_rounds(rows)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["N_unique"] == [[0, 2], [2, 4]]
    assert list(drawn) == ["N_valid_env", "N_unique", "N_lowE"]
    with pytest.raises(ValueError, match="no rounds"):
        plot_rounds(RESULT)


def test_energy_against_density_by_dimension():
    ax = plot_energy_density(RESULT, emax=0.55)
    found = {part.get_label(): np.asarray(part.get_offsets()).tolist() for part in ax.collections}
    assert found == {
        "frameworks (2)": [[2.0, 0.4], [1.5, 0.3]],
        "frameworks, motif lost (1)": [[3.4, 0.9]],
        "layers (1)": [[2.2, 0.1]],
    }
    colors = [tuple(part.get_edgecolor()[0]) for part in ax.collections]
    assert colors[0] == colors[1] != colors[2]
    assert len(ax.collections[1].get_facecolor()) == 0  # open
