"""What the descriptor costs: processor milliseconds of one core per 100 000 pairs.

    python scripts/benchmark_descriptor.py [--pairs 100000] [--neighbors 6] [--repeats 7]

Pairs: random vectors of 1.0 to 2.1 Å, centres with a random number of neighbours, ``--neighbors``
on average. Each figure is the fastest of the repeats. "plain" is the gradient by PyTorch's autograd
through the same formulas written in ordinary operations: what the hand-written kernel saves.

Neighbours: 1000 random crystals of 8 to 100 atoms, 4 centres each, cutoff 2.1 Å, skin 0.5 Å: a
search from nothing, and an update of a list in which nothing has moved far.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core

import torch
from machine import describe_machine
from torch import Tensor

from asexlatent.descriptor import NeighborList, PowerSpectrum, neighbor_pairs, pair_vectors

PARAMETERS = 10
SETTINGS = [(2, 4), (4, 6), (8, 8)]


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return 1e3 * best


def random_pairs(pairs: int, neighbors: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(pairs, 3, generator=generator, dtype=torch.float64)
    length = 1.0 + 1.1 * torch.rand(pairs, 1, generator=generator, dtype=torch.float64)
    vectors = (vectors / vectors.norm(dim=1, keepdim=True) * length).to(dtype)
    centers = torch.randint(0, int(pairs / neighbors), (pairs,), generator=generator).sort().values
    return vectors, centers, torch.full((pairs,), 6)


def measure_spectra(
    nmax: int, lmax: int, dtype: torch.dtype, arguments: argparse.Namespace
) -> list[float]:
    vectors, centers, numbers = random_pairs(arguments.pairs, arguments.neighbors, dtype)
    count = int(centers[-1]) + 1
    model = PowerSpectrum(nmax, lmax, dtype=dtype)
    pairs = (vectors, centers, numbers, count)
    tangents = torch.randn(len(vectors), 3, PARAMETERS, dtype=dtype)
    leaf = vectors.clone().requires_grad_()
    seeds = torch.randn(count, model.n_components, dtype=dtype)

    def gradient() -> object:
        return torch.autograd.grad(model(leaf, *pairs[1:]), leaf, seeds)

    def plain() -> object:
        total = model._plain(leaf, *pairs[1:])
        return torch.autograd.grad(model._kernel.contract(total), leaf, seeds)

    works = [
        lambda: model(*pairs),
        gradient,
        lambda: model.with_parameter_jacobian(*pairs, tangents),
        lambda: model.with_pair_jacobian(*pairs),
        plain,
    ]
    scale = 1e5 / arguments.pairs
    return [scale * milliseconds(work, arguments.repeats) for work in works]


def measure_neighbors(repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(8, 100, (1000,), generator=generator)
    crystal = torch.repeat_interleave(sizes)
    edges = (9.0 * sizes.double()) ** (1 / 3)
    noise = torch.randn(1000, 3, 3, generator=generator, dtype=torch.float64)
    cells = torch.eye(3, dtype=torch.float64) * edges[:, None, None] + 0.5 * noise
    scaled = torch.rand(len(crystal), 3, generator=generator, dtype=torch.float64)
    first = torch.cumsum(sizes, 0) - sizes
    centers = (first[:, None] + torch.arange(4)).flatten()
    found = neighbor_pairs(scaled, cells, crystal, centers, 2.1)
    search = milliseconds(lambda: neighbor_pairs(scaled, cells, crystal, centers, 2.1), repeats)
    neighbors = NeighborList(crystal, centers, 2.1, 0.5)
    neighbors.update(scaled, cells)
    update = milliseconds(lambda: neighbors.update(scaled + 1e-4, cells), repeats)
    vectors = milliseconds(lambda: pair_vectors(scaled, cells, crystal, centers, found), repeats)
    print(f"\n1000 crystals, {len(scaled)} atoms, 4000 centres, {len(found.centers)} pairs, ms:")
    print(f"search {search:.0f}, update of a list {update:.0f}, vectors {vectors:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--neighbors", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"On {describe_machine(1)}; torch {torch.__version__}; ms per 100 000 pairs")
    print(f"{arguments.pairs} pairs, {arguments.neighbors:g} for each centre\n")
    columns = ("spectra", "gradient", f"for {PARAMETERS} parameters", "for each pair", "plain")
    print("| nmax, lmax | dtype |" + "".join(f" {name} |" for name in columns))
    print("|---|---|" + "---:|" * len(columns))
    for nmax, lmax in SETTINGS:
        for dtype in (torch.float64, torch.float32):
            times = measure_spectra(nmax, lmax, dtype, arguments)
            cells = "".join(f" {value:.0f} |" for value in times)
            print(f"| {nmax}, {lmax} | {str(dtype).removeprefix('torch.')} |{cells}", flush=True)
    measure_neighbors(arguments.repeats)


if __name__ == "__main__":
    main()
