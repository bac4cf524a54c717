"""What a reference structure says about bonds: sites, first shells, the motif rule, spectra."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asexlatent.descriptor.motif import MotifRule, all_pairs, atoms_geometry, pair_key
from asexlatent.descriptor.neighbors import neighbor_pairs, pair_vectors
from asexlatent.descriptor.power_spectrum import PowerSpectrum

if TYPE_CHECKING:
    from ase import Atoms

GAP = 1.2  # a shell ends where the next neighbour is this much farther
SHORTEST_FRACTION = 0.8  # shortest allowed distance, as a fraction of the one in the reference
_FAR = 16.0  # Å; an atom without neighbours up to here has none
_SAME = 1e-4  # sites whose spectra differ by less, relative to the largest number, are one


@dataclass(frozen=True)
class Shell:
    """The nearest neighbours of one atom.

    Attributes
    ----------
    species : tuple of str
        Neighbours up to the gap, nearest first.
    bonds : tuple of float
        Their distances in Å.
    beyond : float
        Distance in Å of the first neighbour behind the gap, or a lower bound of it.
    """

    species: tuple[str, ...]
    bonds: tuple[float, ...]
    beyond: float


def select_sites(
    atoms: Atoms, sites: Sequence[int | str] | int | str | None, name: str
) -> list[int]:
    """Atom indices chosen by indices, species or both; all atoms for None."""
    if len(atoms) == 0:
        raise ValueError(f"{name} has no atoms to take a local environment from")
    if sites is None:
        return list(range(len(atoms)))
    chosen: list[int] = []
    for site in [sites] if isinstance(sites, (int, str)) else sites:
        if isinstance(site, str):
            found = [i for i, symbol in enumerate(atoms.symbols) if symbol == site]
            if not found:
                raise ValueError(f"{name} has no site of species {site!r}")
            chosen += found
        elif not 0 <= int(site) < len(atoms):
            raise ValueError(f"{name} has no site {site}; its atoms are 0 to {len(atoms) - 1}")
        else:
            chosen.append(int(site))
    if not chosen:
        raise ValueError(f"{name}: no site was chosen")
    return list(dict.fromkeys(chosen))


def neighbors_of(
    atoms: Atoms, centers: Sequence[int], reach: float
) -> list[list[tuple[float, str]]]:
    """(distance in Å, species) of the neighbours of each centre up to ``reach``, nearest first."""
    scaled, cells, crystal, _, _ = atoms_geometry(atoms, reach)
    chosen = torch.tensor(list(centers), dtype=torch.long)
    pairs = neighbor_pairs(scaled, cells, crystal, chosen, reach)
    distances = pair_vectors(scaled, cells, crystal, chosen, pairs).norm(dim=1)
    lists: list[list[tuple[float, str]]] = [[] for _ in centers]
    symbols = list(atoms.symbols)
    flat = zip(pairs.centers.tolist(), distances.tolist(), pairs.neighbors.tolist(), strict=True)
    for center, distance, atom in flat:
        lists[center].append((distance, symbols[atom]))
    return [sorted(entries) for entries in lists]


def first_shells(atoms: Atoms, centers: Sequence[int]) -> list[Shell]:
    """First neighbour shell of each centre: up to the first gap of a factor 1.2 in distance.

    Raises
    ------
    ValueError
        When an atom has no neighbour within 16 Å, or no gap up to 2.5 times its nearest distance.
    """
    reach = 2.0
    near = neighbors_of(atoms, centers, reach)
    while reach < _FAR and not all(near):
        reach *= 2.0
        near = neighbors_of(atoms, centers, reach)
    for center, entries in zip(centers, near, strict=True):
        if not entries:
            raise ValueError(
                f"atom {center} ({atoms.symbols[center]}) has no neighbour within {_FAR:g} Å; "
                "it has no local environment"
            )
    limit = 2.5 * max(entries[0][0] for entries in near)
    shells = []
    for center, entries in zip(centers, neighbors_of(atoms, centers, limit), strict=True):
        shells.append(_first_shell(center, atoms.symbols[center], entries))
    return shells


def _first_shell(center: int, symbol: str, entries: list[tuple[float, str]]) -> Shell:
    limit = 2.5 * entries[0][0]
    entries = [entry for entry in entries if entry[0] < limit]
    distances = [distance for distance, _ in entries] + [limit]
    for last in range(len(entries)):
        if distances[last + 1] > GAP * distances[last]:
            inside = entries[: last + 1]
            species = tuple(other for _, other in inside)
            return Shell(species, tuple(d for d, _ in inside), distances[last + 1])
    raise ValueError(
        f"atom {center} ({symbol}) has no gap of a factor {GAP} behind its first shell "
        f"(neighbours at {', '.join(f'{d:.2f}' for d in distances[:6])} ... Å); give cutoffs"
    )


def derive_rule(
    atoms: Atoms,
    centers: Sequence[int],
    coordination: Mapping[str, int | Sequence[int]] | None = None,
    cutoffs: Mapping[str, float] | None = None,
    shortest: Mapping[str, float] | None = None,
) -> MotifRule:
    """The motif rule that the reference sites obey.

    Parameters
    ----------
    atoms
        Reference structure.
    centers
        Atom indices of the reference sites.
    coordination, cutoffs, shortest
        Parts of the rule that are given; ``cutoffs`` replaces all derived ones, the others replace
        those of the same species or pair.

    Raises
    ------
    ValueError
        When no cutoff fits all sites, or a site has no bonded neighbour.
    """
    if cutoffs is None:
        cutoffs = _cutoffs(atoms, centers)
    distances = _shortest(atoms)
    lengths = {pair: SHORTEST_FRACTION * distance for pair, distance in distances.items()}
    lengths |= {pair_key(*pair.split("-")): value for pair, value in (shortest or {}).items()}
    bare = MotifRule({}, cutoffs, lengths)
    counts: dict[str, set[int]] = defaultdict(set)
    for center, entries in zip(centers, neighbors_of(atoms, centers, bare.reach), strict=True):
        symbol = atoms.symbols[center]
        bonded = [d for d, other in entries if d < bare.cutoffs.get(pair_key(symbol, other), 0.0)]
        if not bonded and symbol not in (coordination or {}):
            raise ValueError(
                f"atom {center} ({symbol}) has no neighbour within the cutoffs {cutoffs}"
            )
        counts[symbol].add(len(bonded))
    allowed = {symbol: tuple(values) for symbol, values in counts.items()}
    return MotifRule({**allowed, **(coordination or {})}, cutoffs, lengths)


def _cutoffs(atoms: Atoms, centers: Sequence[int]) -> dict[str, float]:
    """Geometric middle of the gap between the longest bond of a pair and whatever comes next."""
    longest: dict[str, float] = defaultdict(float)
    beyond: dict[str, float] = defaultdict(lambda: float("inf"))
    for center, shell in zip(centers, first_shells(atoms, centers), strict=True):
        for other, bond in zip(shell.species, shell.bonds, strict=True):
            pair = pair_key(atoms.symbols[center], other)
            longest[pair] = max(longest[pair], bond)
            beyond[pair] = min(beyond[pair], shell.beyond)
    for pair, bond in longest.items():
        if beyond[pair] <= bond:
            raise ValueError(
                f"no single cutoff fits the {pair} bonds of all sites: one is {bond:.3f} Å, where "
                f"another site's shell ends before {beyond[pair]:.3f} Å; "
                f"give cutoffs={{'{pair}': ...}}"
            )
    return {pair: (bond * beyond[pair]) ** 0.5 for pair, bond in longest.items()}


def _shortest(atoms: Atoms) -> dict[str, float]:
    """Shortest distance in Å of each pair of species; of any pair for one that never meets."""
    wanted = all_pairs(atoms.symbols)
    found: dict[str, float] = {}
    reach = 2.0
    while reach <= _FAR and len(found) < len(wanted):
        for symbol, entries in zip(
            atoms.symbols, neighbors_of(atoms, range(len(atoms)), reach), strict=True
        ):
            for distance, other in entries:
                pair = pair_key(symbol, other)
                found[pair] = min(distance, found.get(pair, distance))
        reach *= 2.0
    if not found:
        raise ValueError(f"no two atoms are nearer than {_FAR:g} Å; there is no local environment")
    return {pair: found.get(pair, min(found.values())) for pair in wanted}


def reference_spectra(
    model: PowerSpectrum, atoms: Atoms, centers: Sequence[int], name: str
) -> Tensor:
    """Spectra (len(centers), L) of some atoms; an error when one has no neighbour within rcut."""
    scaled, cells, crystal, _, numbers = atoms_geometry(atoms, model.rcut)
    chosen = torch.tensor(list(centers), dtype=torch.long)
    pairs = neighbor_pairs(scaled, cells, crystal, chosen, model.rcut)
    counts = torch.bincount(pairs.centers, minlength=len(chosen))
    if (counts == 0).any():
        atom = centers[int((counts == 0).nonzero()[0, 0])]
        raise ValueError(
            f"{name}: atom {atom} ({atoms.symbols[atom]}) has no neighbour within rcut = "
            f"{model.rcut:g} Å; raise rcut"
        )
    vectors = pair_vectors(scaled, cells, crystal, chosen, pairs)
    return model(vectors, pairs.centers, numbers[pairs.neighbors], len(chosen))


def merge_equal(spectra: Tensor, species: Sequence[str]) -> list[int]:
    """Rows to keep so that no two of one species are equal (to 1e-4 of the largest number)."""
    kept: list[int] = []
    for i, symbol in enumerate(species):
        tolerance = _SAME * float(spectra[i].abs().max())
        same = [j for j in kept if species[j] == symbol]
        if not any(float((spectra[i] - spectra[j]).abs().max()) <= tolerance for j in same):
            kept.append(i)
    return kept
