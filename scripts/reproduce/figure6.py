"""Figure 6 of the method: rounds 0 to 3 of the dual-level refinement, cumulative.

    python scripts/reproduce/figure6.py [CANDIDATES] [-n 1000] [--seed 0] [--default]

CANDIDATES: "model" (samples of the conditional VAE, the default), "random" or a CSV table of rows.
It has the order of the method: one descent, then three rounds of latent refinement and one
descent each. With --default also what asexlatent-refine does without rounds: ten further attempts
from other starts. Counts and energies are those of the screening.
"""

from __future__ import annotations

from pathlib import Path

from common import COUNTS, finish, kept, panels, parser, refined, save, screened, start

from asexlatent.latent import DualLevelRun, load_model
from asexlatent.plotting import plot_energies, plot_rounds

HOW = {"rounds": 3, "restarts": 0, "round_restarts": 0}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("candidates", nargs="?", default="model")
    made.add_argument("--model", type=Path, help="folder of a model (default: the shipped one)")
    made.add_argument("--default", action="store_true", help="also without rounds, as by default")
    options = made.parse_args()
    start(options)

    from benchmark_dual_level import candidates_of

    model = load_model(options.model)
    candidates = candidates_of(options.candidates, options.n, options.seed, model)

    def work() -> tuple[list, list]:
        run = DualLevelRun(candidates, model=model, seed=options.seed, **HOW)
        for _ in run:
            pass
        return run.results(), run.rounds

    weights = [value.numpy() for value in model.network.state_dict().values()]
    inputs = candidates, weights, options.seed, HOW
    results, rounds = kept(options, work, "rounds", *inputs)
    result, spent = screened(results, options)
    table = {}
    for row in result.rounds():
        until = sum(r.cpu_seconds for r in rounds if r.round <= row["round"])
        name = f"round {row['round']}"
        table[name] = {k: v for k, v in row.items() if k != "round"}
        table[name]["refinement so far, CPU s"] = until
    print(f"{spent:.1f} s for the screening")

    if options.default:
        results, seconds = refined(candidates, options, restarts=10)
        plain, _ = screened(results, options)
        table["default, no rounds"] = {name: plain.counts[name] for name in COUNTS}
        table["default, no rounds"]["refinement so far, CPU s"] = seconds

    figure, (left, right) = panels(2)
    plot_rounds(result, left)
    plot_energies(until_rounds(result), right, emax=0.55)
    save(figure, "figure6.png", options)
    finish(table, options, result.calculator)


def until_rounds(result) -> dict[str, list[float]]:
    """Energies above the reference of what was found in each round or before, last round first."""
    first = {}
    for row in result.rows:
        if row.round is not None:
            of = row.index if row.duplicate_of is None else row.duplicate_of
            first[of] = min(row.round, first.get(of, row.round))
    numbers = sorted(set(first.values()), reverse=True)
    return {
        f"rounds 0 to {number}" if number else "round 0": [
            row.above_reference for row in result.ranked if first.get(row.index, 0) <= number
        ]
        for number in numbers
    }


if __name__ == "__main__":
    main()
