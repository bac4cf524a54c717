"""Settings of a run: one list of options for the command line, the YAML file and the code.

Kept free of heavy imports, so that ``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """The command cannot start as it was called; the message is complete for a user."""


def whole(minimum: int, maximum: int | None = None) -> Callable[[Any], int]:
    """Return a reader of whole numbers within limits, from text or from YAML."""

    def read(value: Any) -> int:
        try:
            number = int(value)
            if isinstance(value, bool) or number != float(value):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"must be a whole number, not {value!r}") from None
        if number < minimum or (maximum is not None and number > maximum):
            limits = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise ValueError(f"must be {limits}, not {number}")
        return number

    return read


def real(value: Any) -> float:
    """Read a finite number that is not negative."""
    try:
        number = float(value)
        if isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"must be a number, not {value!r}") from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"must be finite and not negative, not {number}")
    return number


def positive(value: Any) -> float:
    """Read a finite number above zero."""
    number = real(value)
    if not number:
        raise ValueError("must be above zero")
    return number


def text(value: Any) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text, not {value!r}")
    return value


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a reader of one of a few words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}, not {value!r}")
        return value

    return read


def auto_or_whole(value: Any) -> int | str:
    """Read ``auto`` or a whole number of at least 1."""
    if value == "auto":
        return "auto"
    try:
        return whole(1)(value)
    except ValueError:
        raise ValueError(f"must be auto or a whole number of at least 1, not {value!r}") from None


def paths(value: Any) -> tuple[str, ...]:
    """Read a list of inputs, or one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"must be a path or a list of paths, not {value!r}")
    return tuple(items)


def _option(
    default: Any, read: Callable[[Any], Any], help: str, group: str, metavar: str | None = None
) -> Any:
    metadata = {"read": read, "help": help, "group": group, "metavar": metavar}
    return field(default=default, metadata=metadata)


SCREENING_ONLY = ("calculator", "emax", "top")
NEUTRAL = frozenset({"workers", "scheduler", "screen", *SCREENING_ONLY})
"""Settings that no refined crystal depends on."""

TARGET, SOLVER, SCREENING, INPUT, MACHINE, OUTPUT = (
    "target",
    "refinement",
    "screening",
    "reading the input",
    "machine",
    "output",
)


CALCULATOR_HELP = (
    "where energies come from: mace-mp or mace-mp-small|medium|large, a MACE model file, chgnet "
    "(default: the carbon model that ships with the package)"
)
EMAX_HELP = "a crystal is low in energy up to this, in eV/atom above the reference"
TOP_HELP = "write the best N as CIF files"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the results of ``asexlatent-refine``, and how they are made.

    A value of None means: what the target file, or the library, has by itself.
    """

    inputs: tuple[str, ...] = field(default=(), metadata={"read": paths})
    target: str = _option(
        "sp2",
        text,
        "wanted local environment: a name (sp2, sp3, sp, SiO4, MgO6, TiO6, BN), a structure "
        "file, optionally with the reference sites (quartz.cif:Si, file.cif:0,3), or a JSON "
        "file of LocalEnvironment.save",
        TARGET,
        "NAME|FILE[:SITE]",
    )
    rcut: float | None = _option(
        None, positive, "cutoff of the descriptor in Å (default: as suits the target)", TARGET, "R"
    )
    nmax: int | None = _option(None, whole(1), "radial functions (default: 2)", TARGET, "N")
    lmax: int | None = _option(None, whole(0), "largest angular momentum (default: 4)", TARGET, "L")
    alpha: float | None = _option(
        None, positive, "exponent of the Gaussians in 1/Å² (default: 1.5)", TARGET, "A"
    )
    solver: str = _option("lm", text, "minimiser", SOLVER, "NAME")
    restarts: int = _option(
        15,
        whole(0),
        "further attempts at a crystal that is not valid yet, from other starts",
        SOLVER,
        "N",
    )
    rounds: int = _option(
        0,
        whole(0),
        "rounds after the first for crystals that are not valid: their latent variables are "
        "refined, and what is decoded from them is refined again",
        SOLVER,
        "N",
    )
    model: str | None = _option(
        None,
        text,
        "model for the rounds, a folder made by asexlatent-train (default: the one for sp2 "
        "carbon that ships with the package)",
        SOLVER,
        "DIR",
    )
    no_latent: bool = _option(
        False, flag, "rounds without a model: further attempts from other starts", SOLVER
    )
    steps: int = _option(
        1000, whole(0), "step limit of the descent that ends an attempt", SOLVER, "N"
    )
    ftol: float = _option(
        0.05,
        real,
        "a crystal has converged when its generalised gradient is below this",
        SOLVER,
        "F",
    )
    seed: int = _option(0, whole(0), "of the random numbers", SOLVER, "N")
    screen: bool = _option(
        False,
        flag,
        "go on to screen the refined crystals: which are different, and which are low in energy",
        SCREENING,
    )
    calculator: str | None = _option(None, text, CALCULATOR_HELP, SCREENING, "NAME|PATH")
    emax: float = _option(0.55, real, EMAX_HELP, SCREENING, "E")
    top: int = _option(20, whole(0), TOP_HELP, SCREENING, "N")
    symprec: float = _option(1e-2, positive, "tolerance of the symmetry detection in Å", INPUT, "D")
    space_group: int | None = _option(
        None, whole(1, 230), "impose this space group instead of detecting it", INPUT, "N"
    )
    bad_sites: str = _option(
        "fail",
        one_of("fail", "drop"),
        "a table row with a site that cannot be: fail the row, or drop the site and say so",
        INPUT,
        "fail|drop",
    )
    degrees: bool = _option(False, flag, "angles of CSV tables are in degrees", INPUT)
    device: str = _option("cpu", text, "torch device, such as cuda", MACHINE, "NAME")
    dtype: str = _option(
        "float64", one_of("float64", "float32"), "precision", MACHINE, "float64|float32"
    )
    batch_size: int | str = _option(
        "auto",
        auto_or_whole,
        "crystals refined at a time; auto fits them into memory",
        MACHINE,
        "auto|N",
    )
    memory: float = _option(
        2.0, positive, "budget for the tensors of one batch in GiB", MACHINE, "GIB"
    )
    workers: int | None = _option(
        None,
        whole(1),
        "processes that share the chunks (default: one per usable core; none for a single chunk or "
        "on an accelerator)",
        MACHINE,
        "N",
    )
    scheduler: str | None = _option(
        None,
        text,
        "address of a Dask scheduler whose workers share the chunks, such as tcp://host:8786",
        MACHINE,
        "ADDRESS",
    )
    chunk_size: int | None = _option(
        None,
        whole(1),
        "candidates worked on and kept together; other chunks, other last digits (default: 500, "
        "on an accelerator 4000)",
        MACHINE,
        "N",
    )
    threads: int = _option(
        1, whole(1), "threads of each process; more bring next to nothing", MACHINE, "N"
    )
    plot: bool = _option(
        False, flag, "write the spectra and the distribution of losses as PNG and PDF", OUTPUT
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], origin: str) -> Settings:
        """Check and take over values by name; `origin` names their source in an error.

        Raises
        ------
        UsageError
            For unknown names, and values that cannot be.
        """
        readers = {f.name: f for f in fields(cls)}
        made = {}
        for name, value in values.items():
            if name not in readers:
                close = difflib.get_close_matches(str(name), readers, n=1)
                hint = f"; did you mean {close[0]}?" if close else f" (known: {', '.join(readers)})"
                raise UsageError(f"{origin}: unknown setting {name!r}{hint}")
            option = readers[name]
            try:
                made[name] = (
                    None
                    if value is None and option.default is None
                    else option.metadata["read"](value)
                )
            except ValueError as error:
                raise UsageError(f"{origin}: {name} {error}") from None
        return cls(**made)

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> Settings:
        """Read a YAML file; `overrides` win over what it says.

        Raises
        ------
        UsageError
            When the file cannot be read, is no YAML mapping, or names what does not exist.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the config {path}: {error}") from None
        except yaml.YAMLError as error:
            line = " ".join(str(error).split())
            raise UsageError(f"the config {path} is not YAML: {line}") from None
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise UsageError(f"the config {path} must be a list of 'name: value' lines")
        return cls.from_mapping({**values, **overrides}, str(path))

    def dump(self) -> str:
        """YAML text; `load` reads it back to equal settings."""
        import yaml

        values = dataclasses.asdict(self)
        values["inputs"] = list(self.inputs)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
