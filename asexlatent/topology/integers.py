"""Integer lattices of rank at most three: bases, coordinates, saturation.

Everything here is exact. Vectors are rows; entries are Python integers or int64 arrays small enough
that no product overflows (cell indices of bonds, not coordinates).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Row = list[int]


def echelon_basis(rows: Iterable[Sequence[int]]) -> list[Row]:
    """Echelon basis of the lattice spanned by integer rows.

    Parameters
    ----------
    rows
        Integer vectors, each of the same length ``d``.

    Returns
    -------
    list of list of int
        At most ``d`` rows in echelon form with positive pivots, spanning the same lattice.
    """
    basis: list[Row] = []
    for row in rows:
        _insert(basis, [int(x) for x in row])
    return basis


def _pivot(row: Row) -> int:
    return next((k for k, x in enumerate(row) if x), len(row))


def _insert(basis: list[Row], row: Row) -> None:
    """Add one vector to an echelon basis, in place (Euclid on rows that share a pivot)."""
    while any(row):
        k = _pivot(row)
        at = next((i for i, b in enumerate(basis) if _pivot(b) >= k), len(basis))
        if at == len(basis) or _pivot(basis[at]) > k:
            basis.insert(at, row if row[k] > 0 else [-x for x in row])
            return
        pivot = basis[at]
        q = row[k] // pivot[k]
        row = [x - q * y for x, y in zip(row, pivot, strict=True)]
        if row[k]:  # 0 < row[k] < pivot[k]: the smaller one becomes the pivot row
            basis[at], row = row, pivot


def lattice_basis(rows: np.ndarray) -> np.ndarray:
    """Short basis of the lattice spanned by integer rows.

    Parameters
    ----------
    rows : (k, d) int array
        Spanning vectors, in any number.

    Returns
    -------
    (r, d) int array
        A basis, ``r`` the rank; rows shortened against each other so that later numbers stay small.
    """
    rows = np.asarray(rows, dtype=np.int64)
    distinct = np.unique(rows, axis=0) if len(rows) else rows
    order = np.argsort((distinct**2).sum(axis=1), kind="stable")
    basis = echelon_basis(distinct[order].tolist())
    return np.array(_shorten(basis), dtype=np.int64).reshape(len(basis), rows.shape[1])


def _shorten(basis: list[Row]) -> list[Row]:
    """Pairwise (Gauss) reduction: subtract multiples of other rows while that shortens."""
    rows = [list(r) for r in basis]
    changed = True
    while changed:
        changed = False
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                if i == j:
                    continue
                bb = sum(x * x for x in b)
                ab = sum(x * y for x, y in zip(a, b, strict=True))
                q = (2 * ab + bb) // (2 * bb)  # nearest integer to ab / bb
                shorter = [x - q * y for x, y in zip(a, b, strict=True)]
                if q and sum(x * x for x in shorter) < sum(x * x for x in a):
                    rows[i] = a = shorter
                    changed = True
    return rows


def coordinates(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Integer coordinates of lattice vectors in a basis of their lattice.

    Parameters
    ----------
    vectors : (k, d) int array
    basis : (r, d) int array
        Independent rows.

    Returns
    -------
    (k, r) int array with ``result @ basis == vectors``.

    Raises
    ------
    ArithmeticError
        If a vector is not in the lattice (a defect in the caller).
    """
    vectors = np.asarray(vectors, dtype=np.int64)
    if len(basis) == 0:
        return np.zeros((len(vectors), 0), dtype=np.int64)
    gram = basis @ basis.T
    scaled = (vectors @ basis.T) @ adjugate(gram)
    result, rest = np.divmod(scaled, determinant(gram))
    if rest.any() or not np.array_equal(result @ basis, vectors):
        raise ArithmeticError("a cycle of the net does not lie in the cycle lattice")
    return result


def determinant(matrix: np.ndarray) -> int:
    """Exact determinant of an integer matrix of size 0 to 3 (Python integers inside)."""
    m = [[int(x) for x in row] for row in matrix]
    if len(m) == 0:
        return 1
    if len(m) == 1:
        return m[0][0]
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return sum(
        m[0][k] * (m[1][(k + 1) % 3] * m[2][(k + 2) % 3] - m[1][(k + 2) % 3] * m[2][(k + 1) % 3])
        for k in range(3)
    )


def adjugate(matrix: np.ndarray) -> np.ndarray:
    """Adjugate of an int matrix of size 1 to 3: ``matrix @ adjugate == determinant * identity``."""
    m = np.asarray(matrix)
    if len(m) == 1:
        return np.ones_like(m)
    if len(m) == 2:
        return np.array([[m[1, 1], -m[0, 1]], [-m[1, 0], m[0, 0]]], dtype=m.dtype)
    return adjugates(m)


def adjugates(matrices: np.ndarray) -> np.ndarray:
    """Adjugates of matrices (..., 3, 3), for any dtype."""
    a, b, c = matrices[..., 0, :], matrices[..., 1, :], matrices[..., 2, :]
    return np.stack([cross(b, c), cross(c, a), cross(a, b)], axis=-1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along the last axis (length 3), for any dtype, Python integers included."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def saturation_index(basis: np.ndarray) -> int:
    """Index of a lattice in all the integer vectors of the space it spans.

    It counts the translates of a component that lie in the same space: 2 for one of two
    interpenetrating nets that a lattice translation carries into each other.

    Parameters
    ----------
    basis : (r, d) int array
        Independent rows.

    Returns
    -------
    int
        The greatest common divisor of the r x r minors; 1 for rank 0.
    """
    basis = np.asarray(basis, dtype=np.int64)
    rank, size = basis.shape
    if rank == 0:
        return 1
    if rank == 1:
        return int(np.gcd.reduce(basis[0]))
    if rank == size:
        return abs(determinant(basis))
    return int(np.gcd.reduce(cross(basis[0], basis[1])))  # rank 2 in three dimensions
