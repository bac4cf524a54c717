"""Figure 4 of the method: VAE against conditional VAE on the same conditions.

    python scripts/reproduce/figure4.py [-n 1000] [--seed 0] [--work DIR]

The baseline VAE is sampled until -n of its rows are crystals; the conditional one gets exactly
their conditions (section 4.2 of the method). The conditional model is the one that ships; the
baseline is that of benchmark_generation.py, trained on the same rows with the same settings and
kept in --work. Every candidate is refined by one descent and one attempt from the candidate with
noise; fresh starts would make all generators alike. Counts and energies are those of the screening.
"""

from __future__ import annotations

from pathlib import Path

from common import finish, panels, parser, save, series, start

from asexlatent.latent import Condition, load_model
from asexlatent.optimize import Restarts
from asexlatent.plotting import plot_energies, plot_yields

PAPER = {
    "VAE, paper": {
        "candidates": 100000, "N_valid_env": 18248, "N_unique": 4878, "N_lowE": 508,
    },
    "CVAE, paper": {
        "candidates": 100000, "N_valid_env": 23372, "N_unique": 5695, "N_lowE": 571,
    },
}  # fmt: skip


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", type=Path, help="folder of a model (default: the shipped one)")
    made.add_argument("--preset", default="small", help="of the baseline")
    options = made.parse_args()
    start(options)

    from benchmark_generation import baseline_rows, trained

    cvae = load_model(options.model)
    baseline, _ = trained("tabular", options)
    rows, share = baseline_rows(baseline, options.n, options.seed)
    print(f"{100 * share:.1f} % of the rows of the baseline are crystals")
    conditions = [Condition.from_crystal(row) for row in rows]
    known = [cvae.vocabulary.problem(condition) is None for condition in conditions]
    print(f"{100 * sum(known) / len(known):.1f} % of its conditions are known to the other model")
    candidates = {"VAE": rows, "CVAE": cvae.sample(conditions, seed=options.seed)}
    how = {"restarts": Restarts(1, seed=options.seed, fresh=False), "steps": 60}
    runs = {name: series(found, options, **how) for name, found in candidates.items()}

    figure, (left, right) = panels(2)
    results = {name: run.result for name, run in runs.items()}
    plot_yields(results, left)
    plot_energies(results, right, emax=0.55)
    save(figure, "figure4.png", options)
    table = {f"{name}, here": run.row() for name, run in runs.items()}
    finish(table | PAPER, options, results["VAE"].calculator)


if __name__ == "__main__":
    main()
