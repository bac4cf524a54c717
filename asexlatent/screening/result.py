"""What a screening found: one row per candidate, counts, and the ranking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asexlatent.screening.rows import DUPLICATE, FAILED, INVALID, PENDING, ScreenRow


@dataclass(frozen=True)
class Reference:
    """Zero of the energies of one composition.

    Attributes
    ----------
    name : str
        "graphite", "lowest" or "given".
    energy : float
        eV per atom.
    note : str
        What went wrong in finding a better one.
    """

    name: str
    energy: float
    note: str = ""


@dataclass(eq=False)
class ScreenResult:
    """Outcome of `screen`.

    Attributes
    ----------
    rows : list of ScreenRow
        One per candidate, in input order.
    references : dict of str to Reference
        By composition.
    calculator : str
        Name of what gave the energies.
    emax : float
        eV/atom above the reference up to which a crystal counts as low in energy.
    settings : dict
        All settings, as JSON can hold them.
    """

    rows: list[ScreenRow]
    references: dict[str, Reference]
    calculator: str
    emax: float
    settings: dict[str, Any]

    @property
    def ranked(self) -> list[ScreenRow]:
        """Distinct crystals by rank."""
        return sorted((r for r in self.rows if r.rank is not None), key=lambda r: r.rank)

    @property
    def counts(self) -> dict[str, int]:
        """The published counts, N_valid_env, N_unique and N_lowE, and what lies between them."""
        ranked = self.ranked
        low = [r for r in ranked if r.above_reference <= self.emax]
        by = Counter(r.duplicate_by for r in self.rows if r.status == DUPLICATE)
        status = Counter(r.status for r in self.rows)
        relaxations = Counter(r.relax_status for r in self.rows if r.relax_status)
        return {
            "candidates": len(self.rows),
            "failed": status[FAILED],
            "invalid": status[INVALID],
            "pending": status[PENDING],
            "N_valid_env": sum(r.valid for r in self.rows),
            "duplicates_net": by["net"],
            "relaxations": relaxations.total(),
            "relaxations_failed": relaxations["failed"],
            "relaxations_step_limit": relaxations["step_limit"],
            "duplicates_structure": by["structure"],
            "N_unique": len(ranked),
            "N_unique_motif_kept": sum(bool(r.valid_relaxed) for r in ranked),
            "N_lowE": len(low),
            "N_lowE_motif_kept": sum(bool(r.valid_relaxed) for r in low),
        }

    def rounds(self) -> list[dict[str, int]]:
        """Cumulative counts by the round that made the candidates; empty where none is known.

        Returns
        -------
        list of dict
            ``round``, ``N_valid_env``, ``N_unique``, ``N_lowE``, of this round and those before. A
            crystal counts from the first round in which any candidate was this crystal.
        """
        first: dict[int, int] = {}
        for r in self.rows:
            if r.round is not None:
                of = r.index if r.duplicate_of is None else r.duplicate_of
                first[of] = min(r.round, first.get(of, r.round))
        ranked = [(first[r.index], r) for r in self.ranked if r.index in first]
        return [
            {
                "round": number,
                "N_valid_env": sum(
                    r.valid and r.round is not None and r.round <= number for r in self.rows
                ),
                "N_unique": sum(start <= number for start, _ in ranked),
                "N_lowE": sum(
                    start <= number and r.above_reference <= self.emax for start, r in ranked
                ),
            }
            for number in sorted({r.round for r in self.rows if r.round is not None})
        ]

    def table(self, top: int = 10) -> str:
        """Plain text: the counts, and the best crystals that kept the motif."""
        return "\n".join([*_count_lines(self.counts, self.emax), *_best_lines(self.ranked, top)])

    def write(self, folder: Any, top: int = 20) -> None:
        """Write database, tables, CIFs and summary; see `asexlatent.screening.database`."""
        from asexlatent.screening.database import write_result

        write_result(self, folder, top)


def _count_lines(counts: dict[str, int], emax: float) -> list[str]:
    lost = counts["N_unique"] - counts["N_unique_motif_kept"]
    lines = [
        ("candidates", counts["candidates"], ""),
        ("N_valid_env", counts["N_valid_env"], "obey the motif rule"),
        ("different nets", counts["relaxations"] or counts["N_unique"], "relaxed"),
        ("N_unique", counts["N_unique"], f"{lost} of them lost the motif on relaxing"),
        ("N_lowE", counts["N_lowE"], f"within {emax:g} eV/atom of the reference"),
    ]
    lines += [(n, counts[n], "") for n in (FAILED, PENDING) if counts[n]]
    if counts["relaxations_failed"]:
        lines.append(("failed to relax", counts["relaxations_failed"], ""))
    return [f"{name:<16}{count:>8}  {words}".rstrip() for name, count, words in lines]


def _best_lines(ranked: Sequence[ScreenRow], top: int) -> list[str]:
    best = [r for r in ranked if r.valid_relaxed][:top]
    if not best:
        return []
    head = f"{'rank':>4} {'eV/atom':>9} {'above':>7} {'g/cm3':>6} {'group':>5} {'dim':>3}  "
    lines = ["", head + f"{'net':<16} candidate"]
    for r in best:
        above = round(r.above_reference, 3) + 0.0  # no -0.000
        lines.append(
            f"{r.rank:>4} {r.energy:>9.3f} {above:>7.3f} {r.density_relaxed:>6.2f} "
            f"{r.space_group:>5} {r.dimension_relaxed:>3}  {r.net_relaxed:<16} "
            f"{r.source or r.index}"
        )
    return lines
