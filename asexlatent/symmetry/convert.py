"""Crystals to and from the objects of pymatgen and PyXtal, and CIF.

pymatgen and pyxtal take a second to import, so each is imported by the functions that need it.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.lattice import PARAMETERS, cell_from_parameters, lattice_variables
from asexlatent.symmetry.rows import wrap
from asexlatent.symmetry.wyckoff import (
    CrystalError,
    hermann_mauguin,
    operation_strings,
    wyckoff_positions,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pyxtal import pyxtal

_SAME = 1e-5  # Å: a pyxtal object farther than this from our tables is in another setting


def to_structure(crystal: SymmetricCrystal) -> Structure:
    """``pymatgen.core.Structure`` of the conventional cell, site after site.

    ``crystal.info`` becomes the ``properties`` of the structure.
    """
    from pymatgen.core import Lattice, Structure

    return Structure(
        Lattice(crystal.cell),
        crystal.symbols,
        crystal.scaled_positions(),
        properties=dict(crystal.info),
    )


def from_structure(structure: Structure, **options: Any) -> SymmetricCrystal:
    """Detect the symmetry of a pymatgen structure; ``options`` as in ``symmetrize``.

    Raises
    ------
    CrystalError
        Partial occupancies, or a species that is no element.
    """
    if not structure.is_ordered:
        raise CrystalError(
            f"{structure.formula} has partial occupancies: only ordered structures can be taken"
        )
    atoms = Atoms(
        symbols=[_element(site.specie.symbol) for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
        info=dict(structure.properties or {}),
    )
    return SymmetricCrystal.from_atoms(atoms, **options)


def to_pyxtal(crystal: SymmetricCrystal) -> pyxtal:
    """Return a ``pyxtal`` object with the same group, cell and Wyckoff sites, in the same order."""
    from pyxtal import pyxtal
    from pyxtal.lattice import Lattice
    from pyxtal.symmetry import Group
    from pyxtal.wyckoff_site import atom_site

    group = Group(crystal.space_group)
    struct = pyxtal()
    lattice = Lattice.from_matrix(np.array(crystal.cell), ltype=group.lattice_type)
    struct.build(group, [], [], lattice, [])
    # The sites are set here: `build` would look for their positions within a tolerance.
    struct.atom_sites = [
        atom_site(group[site.position.index], site.position.representative(site.free), site.species)
        for site in crystal.sites
    ]
    counts: dict[str, int] = {}
    for site in crystal.sites:
        counts[site.species] = counts.get(site.species, 0) + site.position.multiplicity
    struct.species = list(counts)
    struct.numIons = np.array(list(counts.values()))
    struct._get_formula()
    struct.source = "asexlatent"
    return struct


def from_pyxtal(struct: pyxtal, **options: Any) -> SymmetricCrystal:
    """Take over the group and sites of a three-dimensional atomic ``pyxtal`` object.

    An object in a setting that is not the standard one of its group goes by its atoms, with its
    group imposed (``options`` as in ``symmetrize``).

    Raises
    ------
    CrystalError
        A molecular crystal, one that is not periodic in three dimensions, or an invalid object.
    """
    if getattr(struct, "molecular", False):
        raise CrystalError("molecular pyxtal crystals cannot be taken; use to_ase() and from_atoms")
    if getattr(struct, "dim", 3) != 3 or not getattr(struct, "valid", False):
        raise CrystalError("the pyxtal object is not a valid three-dimensional crystal")
    number = int(struct.group.number)
    lattice = lattice_variables(number)
    parameters = np.array(struct.lattice.get_para(), dtype=float)
    cell_free = lattice.project(parameters)
    cell = cell_from_parameters(lattice.parameters(cell_free))
    standard = np.abs(cell - cell_from_parameters(parameters)).max() < _SAME
    sites = []
    for site in struct.atom_sites if standard else ():
        position = wyckoff_positions(number)[site.wp.index]
        coords = np.asarray(site.coords, dtype=float)
        projection = position.project(coords[0], cell)
        standard &= projection.distance < _SAME
        standard &= _same_points(position.expand(projection.free), coords, cell)
        if not standard:
            break
        sites.append(Site(_element(site.specie), position, wrap(projection.free)))
    if not standard:
        return SymmetricCrystal.from_atoms(
            struct.to_ase(resort=False), space_group=number, **options
        )
    return SymmetricCrystal(number, cell_free, tuple(sites))


def to_cif(crystal: SymmetricCrystal, path: str | os.PathLike | None = None) -> str:
    """CIF text: symbol, operations and the inequivalent sites only; written to ``path`` if given.

    Coordinates have 15 decimals, so that programs that apply the operations get the same atoms.
    """
    values = crystal.cell_parameters.copy()
    values[3:] = np.degrees(values[3:])
    lines = [
        "data_crystal",
        f"_space_group_IT_number {crystal.space_group}",
        f"_space_group_name_H-M_alt '{hermann_mauguin(crystal.space_group)}'",
    ]
    for name, value in zip(PARAMETERS, values, strict=True):
        kind = "length" if len(name) == 1 else "angle"
        lines.append(f"_cell_{kind}_{name} {value:.15g}")
    lines += ["loop_", "_space_group_symop_id", "_space_group_symop_operation_xyz"]
    operations = operation_strings(crystal.space_group)
    lines += [f"{number} '{text}'" for number, text in enumerate(operations, start=1)]
    lines += [
        "loop_",
        "_atom_site_label",
        "_atom_site_type_symbol",
        "_atom_site_symmetry_multiplicity",
        "_atom_site_Wyckoff_symbol",
        "_atom_site_fract_x",
        "_atom_site_fract_y",
        "_atom_site_fract_z",
        "_atom_site_occupancy",
    ]
    for number, site in enumerate(crystal.sites, start=1):
        xyz = wrap(site.position.representative(site.free))
        lines.append(
            f"{site.species}{number} {site.species} {site.position.multiplicity} "
            f"{site.position.letter} {' '.join(f'{value:.15f}' for value in xyz)} 1.0"
        )
    text = "\n".join(lines) + "\n"
    if path is not None:
        Path(path).write_text(text)
    return text


def from_cif(path: str | os.PathLike, **options: Any) -> SymmetricCrystal:
    """Read the first crystal of a CIF file and detect its symmetry.

    ``options`` as in ``symmetrize``; errors as in :func:`read_cif` and there.
    """
    return SymmetricCrystal.from_atoms(read_cif(path), **options)


def read_cif(path: str | os.PathLike) -> Atoms:
    """First crystal of a CIF file; ASE reads it, and where it cannot, pymatgen.

    Raises
    ------
    CrystalError
        Neither can read it (both reasons are given), or it has partial occupancies.
    OSError
        The file cannot be opened.
    """
    import ase.io

    with open(path, errors="replace") as handle:
        handle.read(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms = ase.io.read(path, index=0, format="cif")
        except Exception as ase_error:
            try:
                return _read_cif_pymatgen(path)
            except CrystalError:
                raise
            except Exception as pymatgen_error:
                raise CrystalError(
                    f"{path} cannot be read as CIF: ASE says {ase_error!r}, "
                    f"pymatgen says {pymatgen_error!r}"
                ) from None
    occupancies = atoms.info.pop("occupancy", {})
    if any(not np.isclose(sum(o.values()), 1) or len(o) > 1 for o in occupancies.values()):
        raise CrystalError(f"{path} has partial occupancies: only ordered structures can be taken")
    return atoms


def _read_cif_pymatgen(path: str | os.PathLike) -> Atoms:
    from pymatgen.io.cif import CifParser

    structure = CifParser(path).parse_structures(primitive=False)[0]
    if not structure.is_ordered:
        raise CrystalError(f"{path} has partial occupancies: only ordered structures can be taken")
    return Atoms(
        symbols=[_element(site.specie.symbol) for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )


def _element(symbol: str) -> str:
    """Chemical symbol that ASE knows: deuterium and tritium are hydrogen."""
    return {"D": "H", "T": "H"}.get(symbol, symbol)


def _same_points(ours: np.ndarray, theirs: np.ndarray, cell: np.ndarray) -> bool:
    """Whether two lists (m, 3) of fractional points are the same points of the crystal."""
    if len(ours) != len(theirs):
        return False
    difference = ours[:, None] - theirs[None]
    near = np.linalg.norm((difference - np.rint(difference)) @ cell, axis=2) < _SAME
    return bool(near.any(axis=0).all() and near.any(axis=1).all())
