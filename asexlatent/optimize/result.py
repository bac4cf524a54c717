"""What goes into a refinement and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase import Atoms

from asexlatent.optimize.driver import Status
from asexlatent.symmetry import CrystalError, SymmetricCrystal

if TYPE_CHECKING:
    from asexlatent.symmetry.detect import Embedding

Candidate = SymmetricCrystal | Atoms | CrystalError


@dataclass(eq=False)
class Refinement:
    """What became of one candidate.

    Attributes
    ----------
    crystal : SymmetricCrystal or None
        Best iterate; None when the candidate could not be understood.
    status, reason : Status, str
        How the refinement ended.
    loss_initial, loss : float
        Eq. 1 of the method before and after; NaN for a failed candidate.
    gradient : float
        Generalised gradient at the best iterate (see `generalized_gradient`).
    steps : int
        Evaluations of the objective, over all attempts up to the one that counts.
    valid : bool
        Every site obeys the motif rule of the environment.
    path : str
        How a valid crystal was reached: "descent" from the candidate itself, "perturbed" from
        the candidate with noise, "fresh" from free variables drawn anew under the same space
        group and Wyckoff positions. Empty for one that is not valid.
        Rounds with a latent stage (`asexlatent.latent.refine_dual_level`) add paths of their own.
    round : int
        Round in which a crystal became valid; of another one, the last that tried. 0 is the
        refinement of the candidates themselves.
    displacement : float
        Largest movement of an atom (Å) when the candidate was made symmetric.
    source : the candidate as it came in.
    embedding : Embedding or None
        How the candidate's own `Atoms` sit on the crystal; None for a `SymmetricCrystal`.
    """

    source: Candidate
    crystal: SymmetricCrystal | None = None
    status: Status = Status.FAILED
    reason: str = ""
    loss_initial: float = float("nan")
    loss: float = float("nan")
    gradient: float = float("nan")
    steps: int = 0
    valid: bool = False
    path: str = ""
    round: int = 0
    displacement: float = 0.0
    embedding: Embedding | None = None

    def to_atoms(self) -> Atoms:
        """Refined structure, in the candidate's own cell and atom order if it came as `Atoms`.

        A failed candidate comes back as it was; one that is no structure at all has no atoms.
        """
        if isinstance(self.source, Atoms):
            atoms = self.source.copy()
            if self.crystal is not None and self.embedding is not None:
                self.embedding.write_back(atoms, self.crystal)
            return atoms
        return Atoms() if self.crystal is None else self.crystal.to_atoms()


@dataclass(frozen=True)
class Progress:
    """State of a running refinement, yielded after each step.

    Attributes
    ----------
    done, total : int
        Crystals finished so far, and all.
    step : int
        Steps taken in the current batch.
    valid : int
        Crystals known to be valid so far.
    """

    done: int
    total: int
    step: int
    valid: int = 0
