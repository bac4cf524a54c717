"""Crystals whose symmetry has no room for the motif, whatever their coordinates."""

from __future__ import annotations

from collections.abc import Sequence

from asexlatent.descriptor import MotifRule
from asexlatent.symmetry import SymmetricCrystal
from asexlatent.symmetry.normalizer import operations
from asexlatent.symmetry.site_symmetry import can_have_neighbors


def obstacle(crystal: SymmetricCrystal, rule: MotifRule) -> str:
    """Say why no crystal of this space group and these Wyckoff positions can obey the rule.

    Two things are looked at. The site symmetry permutes the neighbours of an atom, so that their
    number is a sum of sizes of orbits (`can_have_neighbors`). And a bond has two ends, so that the
    coordination numbers of the atoms of the primitive cell add up to an even number.

    Parameters
    ----------
    crystal : SymmetricCrystal
        Its free variables do not matter.
    rule : MotifRule

    Returns
    -------
    str
        The reason; empty where none was found, which does not mean that there is room.
    """
    allowed = [rule.coordination.get(site.species, ()) for site in crystal.sites]
    if not all(allowed) or not _one_per_direction(rule):
        return ""
    for site, counts in zip(crystal.sites, allowed, strict=True):
        if not any(can_have_neighbors(site.position, count) for count in counts):
            where = f"{site.position.multiplicity}{site.position.letter}"
            return (
                f"no {site.species} at {where} of space group {crystal.space_group} can have "
                f"{_either(counts)} neighbours"
            )
    if all(len({count % 2 for count in counts}) == 1 for counts in allowed):
        copies = len(operations(crystal.space_group).centring)
        atoms = [site.position.multiplicity // copies for site in crystal.sites]
        ends = sum(n * counts[0] for n, counts in zip(atoms, allowed, strict=True))
        if ends % 2:
            return (
                f"the {sum(atoms)} atoms of the primitive cell cannot all have their number of "
                "bonds: each bond has two ends, and the sum is odd"
            )
    return ""


def _one_per_direction(rule: MotifRule) -> bool:
    """Whether two bonded neighbours of an atom cannot lie in the same direction."""
    if not rule.shortest or not rule.cutoffs or rule.shortest.keys() != _all_pairs(rule):
        return False
    return max(rule.cutoffs.values()) < 2 * min(rule.shortest.values())


def _all_pairs(rule: MotifRule) -> set[str]:
    species = sorted(rule.coordination)
    return {f"{a}-{b}" for a in species for b in species if a <= b}


def _either(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts))
