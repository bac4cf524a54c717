"""Constant tables of `PairKernel`."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asexlatent.descriptor.harmonics import gradient_matrices

BLOCK = 4  # Chebyshev polynomials made at a time


class Group(NamedTuple):
    """Degrees ``first .. last - 1``, whose products with the harmonics are done as one.

    ``harmonics``: their rows; ``inputs``: the coefficients that enter; ``upper``: the degrees
    ``first .. upper - 1`` also carry a gradient (of one degree more).
    """

    first: int
    last: int
    upper: int
    harmonics: slice
    inputs: slice


def groups(lmax: int) -> list[Group]:
    """Degrees in groups of at least 9 harmonics: small batched products cost as much as large."""
    edges = [0]
    for degree in range(lmax + 1):
        if (degree + 1) ** 2 - edges[-1] ** 2 >= 9:
            edges.append(degree + 1)
    if edges[-1] != lmax + 1:
        edges = [*edges[:-1], lmax + 1] if len(edges) > 1 else [0, lmax + 1]
    groups = []
    for first, last in pairwise(edges):
        upper = min(last, lmax)
        inputs = slice(first**2, (upper + 1) ** 2)
        groups.append(Group(first, last, upper, slice(first**2, last**2), inputs))
    return groups


def lift(group: Group, lmax: int, scales: np.ndarray) -> np.ndarray:
    """(inputs, rows * harmonics): coefficients to the matrices that act on the harmonics.

    Rows: the sums over m of each degree, then their gradients along x, y, z.
    """
    gradients = gradient_matrices(lmax)
    start = group.inputs.start
    count, gradient_count = group.last - group.first, group.upper - group.first
    size = (group.inputs.stop - start, count + 3 * gradient_count, group.last**2 - start)
    lift = np.zeros(size)
    for i, degree in enumerate(range(group.first, group.last)):
        own = np.arange(degree**2, (degree + 1) ** 2)
        lift[own - start, i, own - start] = scales[own]
        if degree < group.upper:
            above = np.arange((degree + 1) ** 2, (degree + 2) ** 2)
            for axis in range(3):
                block = gradients[axis][np.ix_(above, own)] * scales[own]
                row = count + axis * gradient_count + i
                lift[np.ix_(above - start, [row], own - start)] = block[:, None]
    return lift.reshape(size[0], -1)


def signed_series(table: np.ndarray) -> np.ndarray:
    """(2 nmax (lmax + 1), T') series of h and of dh/du, for polynomials with the kernel's signs."""
    count = max(table.shape[2], 2 * BLOCK)
    count = -(-count // BLOCK) * BLOCK
    both = np.zeros((2, *table.shape[:2], count))
    both[0, ..., : table.shape[2]] = table
    both[1, ..., : table.shape[2] - 1] = 2.0 * np.polynomial.chebyshev.chebder(table, axis=-1)
    signs = np.array([1.0, 1.0, -1.0, -1.0])[(np.arange(count) // BLOCK) % 4]
    return (both * signs).reshape(-1, count)
