"""Subgroups of space groups: maximal ones from PyXtal's tables, all others by chains of these.

A subgroup H of G is given by a matrix P and an origin p, both in conventional coordinates of G, in
the convention of the International Tables: ``(a', b', c') = (a, b, c) P`` are the conventional
vectors of H, and ``x = P x' + p`` turns coordinates of H into those of G. Translationengleiche
subgroups (t) keep all translations, klassengleiche ones (k) keep all rotations.

Translations are integers in units of 1/24 of the cell of G, as in :mod:`normalizer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.normalizer import UNIT, operations, primitive_basis
from asexlatent.symmetry.wyckoff import check_space_group, database_folder


@dataclass(frozen=True, eq=False)
class GroupRelation:
    """A subgroup of a space group, or one of a class of subgroups conjugate in it.

    Attributes
    ----------
    parent, space_group : numbers of the group and of the subgroup.
    index : of the subgroup in the group.
    translation_index : how many times as large its primitive cell is.
    matrix, origin : (3, 3) P and (3,) p, see above.
    path : the chain of maximal subgroups, such as ``((3, "t", 63), (2, "k", 36))``: index, kind
        and number of each step.
    """

    parent: int
    space_group: int
    index: int
    translation_index: int
    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    path: tuple[tuple[int, str, int], ...]

    @property
    def cell_ratio(self) -> float:
        """Volume of the conventional cell of the subgroup over that of the group."""
        return float(np.linalg.det(self.matrix))


@cache
def maximal_subgroups(space_group: int, kinds: str = "tk") -> tuple[GroupRelation, ...]:
    """Maximal subgroups in PyXtal's tables (t: all; k: up to index 9), conjugate ones too.

    Every entry is checked: the operations of the subgroup must be operations of the group.

    Raises
    ------
    RuntimeError
        When an entry is not a subgroup.
    """
    check_space_group(space_group)
    found = []
    for kind in kinds:
        table = _tables(kind)[str(space_group)]
        entries = zip(table["subgroup"], table["index"], table["transformation"], strict=True)
        for number, index, transformation in entries:
            values = np.array(transformation["data"], dtype=float)
            path = ((int(index), kind, int(number)),)
            matrix, origin = values[:, :3], values[:, 3]
            times = int(index) if kind == "k" else 1
            one = GroupRelation(space_group, int(number), int(index), times, matrix, origin, path)
            _members(one)  # raises
            found.append(one)
    return tuple(found)


@lru_cache(maxsize=512)
def subgroups(space_group: int, max_index: int, kinds: str = "tk") -> tuple[GroupRelation, ...]:
    """One subgroup of every class of subgroups conjugate in the group, up to an index.

    The trivial one, the group itself, is left out. Ordered by index.
    """
    eye = np.eye(3)
    start = GroupRelation(space_group, space_group, 1, 1, eye, np.zeros(3), ())
    seen_exactly: set[bytes] = set()
    classes: dict[bytes, GroupRelation] = {}
    todo = [start]
    while todo:
        # Smallest index first, so that each class is reached by its shortest way.
        todo.sort(key=lambda one: -one.index)
        relation = todo.pop()
        for step in maximal_subgroups(relation.space_group, kinds):
            if relation.index * step.index > max_index:
                continue
            longer = _then(relation, step)
            members = _members(longer)
            if members.key in seen_exactly:
                continue
            seen_exactly.add(members.key)
            key = _class_key(space_group, members)
            if key not in classes:
                classes[key] = longer
                todo.append(longer)
    return tuple(sorted(classes.values(), key=lambda one: (one.index, -one.space_group)))


def lattice_translations(relation: GroupRelation) -> NDArray[np.int64]:
    """Translations (n, 3) of the group in 1/24, one for each class modulo those of the subgroup."""
    return _translations(relation.parent, _members(relation).lattice)


def _then(first: GroupRelation, second: GroupRelation) -> GroupRelation:
    return GroupRelation(
        first.parent,
        second.space_group,
        first.index * second.index,
        first.translation_index * second.translation_index,
        first.matrix @ second.matrix,
        first.matrix @ second.origin + first.origin,
        first.path + second.path,
    )


@cache
def _tables(kind: str) -> dict:
    with open(database_folder() / f"{kind}_subgroup.json") as handle:
        tables = json.load(handle)
    wanted = ("subgroup", "index", "transformation")
    return {number: {name: table[name] for name in wanted} for number, table in tables.items()}


# ------------------------------------------------------------- which subgroup is it


@dataclass(frozen=True, eq=False)
class _Members:
    """A subgroup by its elements: lattice (Hermite form, rows, 1/24), and for each element of the
    point group its place among the cosets of the group and its translation (1/24, reduced)."""

    lattice: tuple[int, ...]
    places: NDArray[np.int64]
    translations: NDArray[np.int64]

    @property
    def key(self) -> bytes:
        return np.array(self.lattice).tobytes() + _packed(self.places, self.translations).tobytes()


def _members(relation: GroupRelation) -> _Members:
    """Elements of the subgroup, as elements of the group; RuntimeError if they are not."""
    group, sub = operations(relation.parent), operations(relation.space_group)
    matrix, origin = relation.matrix, relation.origin
    inverse = np.linalg.inv(matrix)
    exact = matrix @ sub.rotations[sub.coset] @ inverse
    rotations = np.rint(exact).astype(np.int64)
    shifts = sub.translations[sub.coset] @ matrix.T + UNIT * (origin - rotations @ origin)
    translations = np.rint(shifts).astype(np.int64)
    lattice = _hermite(np.rint(UNIT * primitive_basis(relation.space_group) @ matrix.T))
    numbers = _numbers(relation.parent)
    try:
        places = np.array([numbers[tuple(r.ravel())] for r in rotations])
    except KeyError:
        raise RuntimeError(_not_a_subgroup(relation)) from None
    difference = (translations - group.translations[group.coset][places]) % UNIT
    centring = {tuple(row) for row in group.centring}
    parts = np.array(lattice).reshape(3, 3) % UNIT
    good = all(tuple(row) in centring for row in (*difference, *parts))
    if (
        not good
        or np.abs(exact - rotations).max() > 1e-6
        or np.abs(shifts - translations).max() > 1e-6
    ):
        raise RuntimeError(_not_a_subgroup(relation))
    order = np.argsort(places)
    return _Members(lattice, places[order], _reduced(translations[order], lattice))


def _class_key(space_group: int, members: _Members) -> bytes:
    """The same for all subgroups conjugate in the group: the smallest of their keys."""
    group = operations(space_group)
    rotations = group.rotations[group.coset]
    vectors = group.translations[group.coset]
    lattices = _images(space_group, members.lattice)
    best = min(lattices)
    chosen = [i for i, lattice in enumerate(lattices) if lattice == best]
    taus = _translations(space_group, best)  # (t, 3)
    conjugate = _conjugation(space_group)[chosen][:, members.places]  # (c, n)
    # (R, r)(W, w)(R, r)^-1 = (W', R w + r - W' r) with W' = R W R^-1; then a translation tau.
    shifts = members.translations @ rotations[chosen].transpose(0, 2, 1)  # (c, n, 3)
    turned = rotations[conjugate]  # (c, n, 3, 3)
    r = vectors[chosen][:, None, :]
    shifts = shifts + r - (turned @ r[..., None])[..., 0]
    order = np.argsort(conjugate, axis=1)
    places = np.take_along_axis(conjugate, order, axis=1)
    shifts = np.take_along_axis(shifts, order[..., None], axis=1)
    turned = rotations[places]
    moves = taus - np.einsum("cnij,tj->cnti", turned, taus)  # (c, n, t, 3)
    all_shifts = _reduced(shifts[:, :, None, :] + moves, best).transpose(0, 2, 1, 3)
    n_taus = len(taus)
    all_places = np.repeat(places, n_taus, axis=0)
    packed = _packed(all_places, all_shifts.reshape(len(all_places), -1, 3))
    smallest = packed[np.lexsort(packed.T[::-1])[0]]
    return np.array(best).tobytes() + smallest.tobytes()


def _packed(places: NDArray[np.int64], translations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place and translation of each element as one integer, (..., n)."""
    code = places
    for axis in range(3):
        code = code * 4096 + translations[..., axis]
    return code


def _not_a_subgroup(relation: GroupRelation) -> str:
    return (
        f"PyXtal's table of subgroups of space group {relation.parent} has an entry that is none "
        f"({relation.path}): please report this with the version of pyxtal"
    )


@cache
def _numbers(space_group: int) -> dict[tuple[int, ...], int]:
    """Rotation (as nine integers) -> its place in ``operations(...).coset``."""
    group = operations(space_group)
    return {tuple(r.ravel()): i for i, r in enumerate(group.rotations[group.coset])}


@cache
def _conjugation(space_group: int) -> NDArray[np.int64]:
    """(p, p): place of ``R_i R_j R_i^-1``."""
    group = operations(space_group)
    rotations = group.rotations[group.coset]
    inverse = np.rint(np.linalg.inv(rotations)).astype(np.int64)
    products = rotations[:, None] @ rotations[None] @ inverse[:, None]
    numbers = _numbers(space_group)
    flat = products.reshape(-1, 9)
    return np.array([numbers[tuple(row)] for row in flat]).reshape(len(rotations), -1)


@lru_cache(maxsize=65536)
def _images(space_group: int, lattice: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The lattice turned by every element of the point group."""
    group = operations(space_group)
    rows = np.array(lattice).reshape(3, 3)
    return tuple(_hermite(rows @ rotation.T) for rotation in group.rotations[group.coset])


@lru_cache(maxsize=65536)
def _translations(space_group: int, lattice: tuple[int, ...]) -> NDArray[np.int64]:
    """Translations (t, 3) of the group, one for each class modulo a lattice of fewer ones."""
    basis = np.rint(UNIT * primitive_basis(space_group)).astype(np.int64)
    index = round(abs(np.linalg.det(np.array(lattice).reshape(3, 3)) / np.linalg.det(basis)))
    found = {(0, 0, 0)}
    fresh = [(0, 0, 0)]
    while len(found) < index:
        candidates = (np.array(fresh)[:, None] + basis).reshape(-1, 3)
        fresh = list({tuple(row) for row in _reduced(candidates, lattice).tolist()} - found)
        found.update(fresh)
    return np.array(sorted(found))


def _reduced(vectors: NDArray[np.int64], lattice: tuple[int, ...]) -> NDArray[np.int64]:
    """Smallest non-negative vectors modulo a lattice in Hermite form (upper triangular)."""
    rows = np.array(lattice).reshape(3, 3)
    vectors = vectors.copy()
    for axis in range(3):
        vectors -= (vectors[..., axis] // rows[axis, axis])[..., None] * rows[axis]
    return vectors


def _hermite(matrix: Iterable) -> tuple[int, ...]:
    """Hermite normal form (rows, upper triangular, nine integers) of three lattice vectors."""
    rows = [[int(v) for v in row] for row in np.asarray(matrix)]
    done: list[list[int]] = []
    for column in range(3):
        while sum(1 for row in rows if row[column]) > 1:
            rows.sort(key=lambda row: (row[column] == 0, abs(row[column])))
            pivot = rows[0]
            for row in rows[1:]:
                factor = row[column] // pivot[column]
                row[:] = [v - factor * p for v, p in zip(row, pivot, strict=True)]
        rows.sort(key=lambda row: row[column] == 0)
        pivot = rows.pop(0)
        if pivot[column] < 0:
            pivot = [-v for v in pivot]
        done = [
            [v - (row[column] // pivot[column]) * p for v, p in zip(row, pivot, strict=True)]
            for row in done
        ]
        done.append(pivot)
    return tuple(v for row in done for v in row)
