"""Barycentric placement of a periodic graph, in exact rational numbers.

Every vertex sits at the mean of its neighbours (Delgado-Friedrichs and O'Keeffe, Acta Cryst. A59,
351, 2003). The placement is unique up to a translation, so what is computed from it does not depend
on how the crystal was drawn. It solves ``L x = t``: the Laplacian of the quotient graph, one vertex
fixed at the origin, and the sums of the edge vectors at each vertex.

The solution is found numerically and proved exactly: a floating-point inverse gives the digits in
blocks (the residual of each block is an exact integer), continued fractions turn the digits into a
fraction, and the fraction is accepted only when it satisfies the integer equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from asexlatent.topology.graph import PeriodicGraph

# Bits found per block. The inverse of a Laplacian of a few thousand vertices is good to about
# 2^-35, so that a block of 2^24 leaves a residual of a few units.
_BLOCK_BITS = 24
# The last digits may be wrong by the size of the inverse times the last residual.
_SLACK_BITS = 16


class PlacementError(ArithmeticError):
    """The exact placement could not be computed within the bounds stated in the documentation."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Barycentric positions of the vertices and the vectors along the edges.

    Attributes
    ----------
    denominators : tuple of int
        One per lattice direction; positions and vectors below are in units of its inverse.
    positions : (n, d) object array of int
        Numerators of the positions; vertex 0 at the origin.
    vectors : (n, k, d) object array of int
        Numerators of the vector along every directed edge, in the order of
        :class:`~asexlatent.topology.graph.HalfEdges`; 0 in the padding.
    """

    denominators: tuple[int, ...]
    positions: np.ndarray
    vectors: np.ndarray


def barycentric_placement(graph: PeriodicGraph) -> Placement:
    """Exact barycentric placement of a connected periodic graph.

    Parameters
    ----------
    graph : PeriodicGraph
        Connected.

    Returns
    -------
    Placement

    Raises
    ------
    PlacementError
        If the floating-point inverse is too poor to start from (thousands of vertices).

    Notes
    -----
    Cost: one inverse, O(n^3) floating-point operations, and O(b) exact products with the Laplacian
    for an answer of ``24 b`` bits; the number of bits grows at most like n log2(mean degree).
    """
    n, d = graph.n_vertices, graph.dimension
    positions = np.zeros((n, d), dtype=object)
    denominators = [1] * d
    if n > 1 and d:
        laplacian, total = _equations(graph)
        inverse = np.linalg.inv(laplacian.astype(float))
        for k, (numerators, denominator) in enumerate(_solve(laplacian, inverse, total)):
            positions[1:, k] = numerators
            denominators[k] = denominator
    scale = np.array(denominators, dtype=object)
    half = graph.half_edges
    target = np.where(half.target < 0, np.arange(n)[:, None], half.target)
    vectors = positions[target] + half.shift.astype(object) * scale - positions[:, None]
    return Placement(tuple(denominators), positions, vectors)


def _equations(graph: PeriodicGraph) -> tuple[np.ndarray, np.ndarray]:
    """Laplacian (n-1, n-1) and right-hand side (n-1, d); loops cancel and are left out."""
    n, d = graph.n_vertices, graph.dimension
    proper = graph.edges[:, 0] != graph.edges[:, 1]
    i, j = graph.edges[proper].T
    shift = graph.shifts[proper]
    laplacian = np.zeros((n, n), dtype=np.int64)
    total = np.zeros((n, d), dtype=np.int64)
    np.add.at(laplacian, (i, i), 1)
    np.add.at(laplacian, (j, j), 1)
    np.add.at(laplacian, (i, j), -1)
    np.add.at(laplacian, (j, i), -1)
    np.add.at(total, i, shift)
    np.add.at(total, j, -shift)
    return laplacian[1:, 1:], total[1:]


def _solve(
    laplacian: np.ndarray, inverse: np.ndarray, total: np.ndarray
) -> list[tuple[np.ndarray, int]]:
    """Numerators (n-1,) and denominator of every column of the solution of ``L x = t``."""
    exact = _Exact(laplacian)
    digits = np.zeros(total.shape, dtype=object)
    residual, bits, check_at = total, 0, 2 * _BLOCK_BITS
    # Cramer's rule bounds numerator and denominator; twice their bits settle the fraction.
    limit = 4 * _BLOCK_BITS + 2 * int(np.log2(np.diag(laplacian).astype(float)).sum() + 1)
    limit += 2 * int(np.log2(1 + np.abs(total).sum()) + 1)
    while True:
        block = np.rint(inverse @ (residual.astype(float) * 2.0**_BLOCK_BITS)).astype(np.int64)
        residual = (residual << _BLOCK_BITS) - exact.apply(block)
        if np.abs(residual).max() > 2**30:
            raise PlacementError("the Laplacian of the net is too ill-conditioned to be solved")
        digits = digits * (1 << _BLOCK_BITS) + block
        bits += _BLOCK_BITS
        if bits >= check_at or bits >= limit:
            check_at = 2 * bits
            columns = [_fractions(digits[:, k], bits) for k in range(digits.shape[1])]
            if all(exact.holds(x, q, total[:, k]) for k, (x, q) in enumerate(columns)):
                return columns
            if bits >= 2 * limit:
                raise PlacementError("the rational placement of the net was not found")


class _Exact:
    """Exact products with a sparse integer matrix, for int64 and for Python integers."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.rows, self.columns = np.nonzero(matrix)
        self.values = matrix[self.rows, self.columns]
        self.first = np.searchsorted(self.rows, np.arange(len(matrix)))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """``matrix @ x`` for x of shape (n, k); no row of a Laplacian is empty."""
        values = self.values[:, None].astype(x.dtype)
        return np.add.reduceat(values * x[self.columns], self.first, axis=0)

    def holds(self, numerators: np.ndarray, denominator: int, right: np.ndarray) -> bool:
        """Whether ``matrix @ numerators == denominator * right``, exactly."""
        left = self.apply(numerators[:, None])[:, 0]
        return bool((left == right.astype(object) * denominator).all())


def _fractions(digits: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Common denominator and numerators whose quotients agree with ``digits / 2**bits``.

    The denominator is built up entry by entry: an entry that the present denominator does not bring
    near an integer contributes the denominator of its best approximation below about
    ``2**(bits/2)``. A guess made from too few digits fails the caller's exact check.
    """
    one = 1 << bits
    largest = 1 << (bits // 2 - _SLACK_BITS // 2)
    denominator = 1
    for value in digits.tolist():
        rest = (value * denominator) % one
        if min(rest, one - rest) > denominator << _SLACK_BITS:
            denominator *= _denominator(rest, one, largest)
            if denominator > one:  # more digits are needed
                break
    half = one >> 1
    numerators = np.array([(v * denominator + half) >> bits for v in digits.tolist()], dtype=object)
    common = gcd(denominator, *numerators.tolist())
    return numerators // common, denominator // common


def _denominator(value: int, one: int, largest: int) -> int:
    """Denominator of the last convergent of ``value / one`` that does not exceed ``largest``."""
    a, b = one, value
    previous, current = 0, 1
    while b:
        q, r = divmod(a, b)
        following = previous + q * current
        if following > largest:
            break
        previous, current = current, following
        a, b = b, r
    return current
