"""What is done with a chunk of candidates or crystals, in this process or in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asexlatent.screening.energies import Relaxer, usable
from asexlatent.screening.identity import describe_candidates, describe_crystal, one_line
from asexlatent.screening.store import unpack_crystal
from asexlatent.symmetry import SymmetricCrystal

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment

Records = dict[str, dict[str, Any]]
"""What is known, by the key of the structure (`key_of`)."""


@dataclass(frozen=True)
class DescribeJob:
    """Motif, symmetry, net and loss of candidates; an `asexlatent.parallel.Job`."""

    environment: LocalEnvironment
    symprec: float

    def work(self, items: Sequence[tuple[str, Atoms | SymmetricCrystal]]) -> Records:
        """Records of some candidates."""
        candidates = [candidate for _, candidate in items]
        found = describe_candidates(candidates, self.environment, self.symprec)
        return {key: record for (key, _), record in zip(items, found, strict=True)}

    def join(self, first: Records, second: Records) -> Records:
        """Both."""
        return first | second

    def lost(self, item: tuple[str, Any], reason: str) -> Records:
        """Record of one that kills the process that looks at it."""
        return {item[0]: {"status": "failed", "reason": reason}}


@dataclass(frozen=True)
class RelaxJob:
    """Relaxed crystals with their energies, motif and net again; an `asexlatent.parallel.Job`."""

    relaxer: Relaxer
    environment: LocalEnvironment

    def work(self, items: Sequence[tuple[str, SymmetricCrystal]]) -> Records:
        """Records of some crystals."""
        records = self.relaxer.records([crystal for _, crystal in items])
        for record in records:
            if usable(record):
                self._judge(record)
        return {key: record for (key, _), record in zip(items, records, strict=True)}

    def join(self, first: Records, second: Records) -> Records:
        """Both."""
        return first | second

    def lost(self, item: tuple[str, Any], reason: str) -> Records:
        """Record of one that kills the process that relaxes it."""
        return {item[0]: {"relax_status": "failed", "relax_reason": reason}}

    def _judge(self, record: dict[str, Any]) -> None:
        """Motif and net after the relaxation; where they cannot be told it has failed."""
        try:
            crystal = unpack_crystal(record["crystal"])
            record["after"] = describe_crystal(crystal, self.environment)
        except Exception as error:  # what a relaxation leaves can be anything
            record["relax_status"] = "failed"
            record["relax_reason"] = f"after relaxation: {one_line(error)}"
