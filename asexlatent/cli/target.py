"""The target of a run, from its name or file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli.settings import Settings, UsageError

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment

_DESCRIPTOR = ("rcut", "nmax", "lmax", "alpha")


def resolve_target(settings: Settings) -> tuple[LocalEnvironment, Settings]:
    """Make the environment, and settings that state the descriptor in numbers.

    Raises
    ------
    UsageError
        The target is neither a name nor a readable file, or does not go with the descriptor
        settings that were asked for.
    """
    from asexlatent.descriptor import LocalEnvironment

    wanted = {k: getattr(settings, k) for k in _DESCRIPTOR if getattr(settings, k) is not None}
    path, sites = _split(settings.target)
    try:
        if path is None:
            environment = LocalEnvironment.named(settings.target, **wanted)
        elif path.suffix == ".json" and sites is None:
            environment = LocalEnvironment.load(path)
        else:
            environment = LocalEnvironment.from_file(path, sites, **wanted)
    except (ValueError, OSError) as error:
        raise UsageError(f"--target {settings.target}: {error}") from None
    used: dict[str, Any] = {k: environment.descriptor[k] for k in _DESCRIPTOR}
    for name, value in wanted.items():
        if value != used[name]:
            raise UsageError(
                f"--{name} {value} does not go with --target {settings.target}, whose spectra were "
                f"made with {name} {used[name]}: leave --{name} out, or make the target again"
            )
    return environment, replace(settings, **used)


def _split(target: str) -> tuple[Path | None, list[int | str] | None]:
    """Path and sites of ``FILE[:SITE,...]``; no path for a plain word, which is a name."""
    if not any(mark in target for mark in "/.:"):
        return None, None
    path, _, sites = target.rpartition(":")
    if path and sites and not Path(target).is_file():
        names = [part.strip() for part in sites.split(",")]
        return Path(path), [int(s) if s.lstrip("-").isdigit() else s for s in names]
    return Path(target), None
