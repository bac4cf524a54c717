"""Rounds through the latent space (``--rounds``): the model they need, and what each brought."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from asexlatent.cli.settings import Settings, UsageError

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.latent.dual_level import DualLevelRun, Round
    from asexlatent.latent.model import LatentModel
    from asexlatent.optimize import RefinementRun
    from asexlatent.optimize.result import Candidate


class Rounds:
    """Makes the run of each chunk, and adds up its rounds.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    UsageError
        The model cannot be loaded, or there are no rounds that it could be for.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._rows: dict[int, Round] = {}
        self.model = self._load()

    def fresh(self) -> Rounds:
        """One with the same model that has counted nothing."""
        other = copy.copy(self)
        other._rows = {}
        return other

    def _load(self) -> LatentModel | None:
        settings = self.settings
        if settings.model is not None and (settings.no_latent or not settings.rounds):
            raise UsageError("--model is for rounds through its latent space: --rounds N")
        if settings.no_latent or not settings.rounds:
            return None
        from asexlatent.latent.placement import placed_model
        from asexlatent.latent.storage import ModelError

        try:
            return placed_model(settings.model, settings.device)
        except (ModelError, OSError) as error:
            raise UsageError(
                f"--rounds {settings.rounds}: {error} (--no-latent does without a model)"
            ) from None

    def start(
        self,
        candidates: Sequence[Candidate],
        environment: LocalEnvironment,
        first_index: int,
        options: dict[str, Any],
    ) -> RefinementRun | DualLevelRun:
        """Run for one chunk; `options` are those of `RefinementRun`."""
        if not self.settings.rounds:
            from asexlatent.optimize import RefinementRun

            return RefinementRun(candidates, environment, first_index=first_index, **options)
        from asexlatent.latent.dual_level import DualLevelRun
        from asexlatent.latent.stage import LatentOptions

        return DualLevelRun(
            candidates,
            environment,
            rounds=self.settings.rounds,
            model=self.model,
            latent=None if self.model is None else LatentOptions(),
            first_index=first_index,
            **options,
        )

    def add(self, run: RefinementRun | DualLevelRun) -> None:
        """Count the rounds of a finished chunk."""
        self._count(getattr(run, "rounds", ()))

    def add_plain(self, rows: Iterable[dict[str, Any]]) -> None:
        """Count what `plain` gave."""
        if rows:
            from asexlatent.latent.dual_level import Round

            self._count(Round(**row) for row in rows)

    def plain(self) -> list[dict[str, Any]]:
        """What was counted, as JSON can hold it."""
        return [asdict(self._rows[number]) for number in sorted(self._rows)]

    @staticmethod
    def added(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sum of two results of `plain`."""
        both = Rounds.__new__(Rounds)
        both._rows = {}
        both.add_plain(first)
        both.add_plain(second)
        return both.plain()

    def _count(self, rows: Iterable[Round]) -> None:
        for row in rows:
            known = self._rows.get(row.round)
            self._rows[row.round] = row if known is None else known + row

    def rows(self) -> list[dict[str, Any]]:
        """Rounds over all chunks for ``summary.json``, in order."""
        rows, valid = [], 0
        for number in sorted(self._rows):
            row = self._rows[number].to_dict()
            valid += row["new"]
            rows.append(row | {"valid": valid})  # chunks that ended earlier count on
        return rows
