"""Figure 5 of the method: one crystal at a time with SciPy against the batch.

    python scripts/reproduce/figure5.py CANDIDATES [-n 1000] [--few 20] [--seed 0]

CANDIDATES as for benchmark_refine.py: a CSV table of rows, "random", or "model" for samples of the
shipped conditional VAE. Every way makes one descent from the candidate. SciPy, which moves one
crystal at a time with finite differences, as the method was run before it was batched, gets the
first --few candidates only, and so does everything that stands beside it in the second table; the
first table holds all of the batch. Counts and energies are those of the screening.
"""

from __future__ import annotations

from common import Series, finish, panels, parser, refined, save, screened, start, table

from asexlatent.plotting import plot_energies, plot_yields

WAYS = {
    "lm, batch": ("lm", 200),
    "adam, batch (published)": ("adam", 1000),
    "L-BFGS-B, SciPy": ("scipy-lbfgsb", 200),
    "Nelder-Mead, SciPy": ("scipy-nelder-mead", 1000),
}
PAPER = {
    "CPU-SciPy, paper (96 cores, wall time)": {
        "candidates": 100000, "N_valid_env": 18248, "N_unique": 4878, "N_lowE": 508,
        "refinement, CPU s / 1000": "~300 (wall)",
    },
    "GPU-PyTorch, paper (H100, wall time)": {
        "candidates": 100000, "N_valid_env": 12874, "N_unique": 4817, "N_lowE": 453,
        "refinement, CPU s / 1000": "~60 (wall)",
    },
}  # fmt: skip


def candidates_of(source: str, number: int, seed: int) -> list:
    """Candidates, exactly so many."""
    if source == "model":
        from asexlatent.latent import load_model

        return load_model().sample(n=number, seed=seed)
    from benchmark_refine import load

    return load(source, number, seed)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("candidates")
    made.add_argument("--few", type=int, default=20, help="candidates for SciPy")
    options = made.parse_args()
    start(options)
    candidates = candidates_of(options.candidates, options.n, options.seed)

    everything, few = {}, {}
    for name, (solver, steps) in WAYS.items():
        how = {"solver": solver, "steps": steps}
        if "SciPy" not in name:
            results, seconds = refined(candidates, options, **how)
            result, spent = screened(results, options)
            everything[name] = Series(len(candidates), seconds, spent, result)
        results, seconds = refined(candidates[: options.few], options, **how)
        result, spent = screened(results, options)
        few[f"{name}, first {options.few}"] = Series(options.few, seconds, spent, result)
        print(f"{name}: {few[f'{name}, first {options.few}'].row()}", flush=True)

    figure, (left, right) = panels(2)
    results = {name: run.result for name, run in everything.items()}
    plot_yields(results, left)
    plot_energies(results, right, emax=0.55)
    save(figure, "figure5.png", options)
    calculator = next(iter(results.values())).calculator
    finish({name: run.row() for name, run in everything.items()} | PAPER, options, calculator)
    print(f"\nthe first {options.few} candidates only:\n")
    print(table({name: run.row() for name, run in few.items()}))


if __name__ == "__main__":
    main()
