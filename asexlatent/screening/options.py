"""Settings of a screening, and what it says while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from asexlatent.screening.duplicates import MatchTolerances
from asexlatent.screening.ranking import check_reference


@dataclass(frozen=True)
class ScreenProgress:
    """State of a running screening.

    Attributes
    ----------
    stage : str
        "nets", "relaxations" or "matching".
    done, total : int
        Crystals of this stage.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class ScreenOptions:
    """Settings of a screening beside environment and calculator.

    Attributes
    ----------
    emax : float
        eV/atom above the reference up to which a crystal counts as low in energy.
    reference : "auto", "lowest" or float
        Zero of the energies: graphite relaxed with the same calculator for carbon and the lowest
        crystal for other compositions; always the lowest; or an energy in eV/atom.
    net_duplicates : bool
        Whether of all candidates of one net, dimension and composition only the one of lowest
        loss is relaxed, as published. Without it stackings of the same layers stay apart, and
        everything valid is relaxed.
    fmax, smax : float
        Thresholds of the relaxation, eV/Å and eV/Å^3; without `smax` that of `relax`.
    steps : int
        Step limit of the relaxation of one crystal.
    symprec : float
        Å, tolerance of the symmetry detection for candidates that are `Atoms`.
    tolerances : MatchTolerances
        Of the second search for duplicates.
    device, dtype, memory
        Torch device, "float64" or "float32", and GiB for a batch of the relaxation.
    """

    emax: float = 0.55
    reference: str | float = "auto"
    net_duplicates: bool = True
    fmax: float = 0.02
    smax: float | None = None
    steps: int = 300
    symprec: float = 1e-2
    tolerances: MatchTolerances = field(default_factory=MatchTolerances)
    device: str = "cpu"
    dtype: str = "float64"
    memory: float = 2.0

    def __post_init__(self) -> None:
        check_reference(self.reference)
        if not self.emax >= 0:
            raise ValueError(f"emax must not be negative, not {self.emax}")
