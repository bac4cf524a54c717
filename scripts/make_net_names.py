"""Build the table of net names, asexlatent/topology/names.json, from structures made here.

Every net is built from a geometric rule or from its published embedding (rcsr_nets.txt), bonded,
checked for its coordination, and identified. Run it again after a change of the key:

    python scripts/make_net_names.py [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from ase.build import bulk, molecule, nanotube

from asexlatent.topology import NetComponent, PeriodicGraph, identify_graph, identify_net
from asexlatent.topology.names import named_table

HERE = Path(__file__).parent
TABLE = HERE.parent / "asexlatent" / "topology" / "names.json"

# name, structure, bond cutoff, neighbours of the vertices, dimension, where the structure is from
Entry = tuple[str, Atoms, float, set[int], int, str]


def layer(name: str, a: float, angle: float, points: np.ndarray, degree: int) -> Entry:
    """A tiling of the plane by regular polygons of edge 1: points in units of the edge."""
    cell = np.array(
        [[a, 0, 0], [a * np.cos(np.radians(angle)), a * np.sin(np.radians(angle)), 0], [0, 0, 20]]
    )
    positions = np.pad(np.asarray(points, dtype=float), ((0, 0), (0, 1)))
    atoms = Atoms(f"C{len(positions)}", positions=positions, cell=cell, pbc=(True, True, False))
    return name, atoms, 1.05, {degree}, 2, "Archimedean tiling"


def ring(radius: float, first: float, number: int) -> np.ndarray:
    """Corners of a regular polygon, the first one at an angle in degrees."""
    angle = np.radians(first + 360 / number * np.arange(number))
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def layers() -> Iterator[Entry]:
    root2, root3 = np.sqrt(2), np.sqrt(3)
    yield layer("sql", 1, 90, [[0, 0]], 4)
    yield layer("hxl", 1, 120, [[0, 0]], 6)
    yield layer("hcb", root3, 120, [[0, 0], [0, 1]], 3)
    yield layer("kgm", 2, 120, [[1, 0], [-0.5, root3 / 2], [0.5, root3 / 2]], 4)
    yield layer("fes", 1 + root2, 90, ring(1 / root2, 0, 4), 3)
    yield layer("fxt", 3 + root3, 120, ring(1 / (2 * np.sin(np.radians(15))), 15, 12), 3)
    yield layer("htb", 1 + root3, 120, ring(1, 30, 6), 4)
    a = 2 + root3
    centres = np.array([[0, a / root3], [a / 2, a / (2 * root3)]])
    triangles = [centres[0] + ring(1 / root3, 90, 3), centres[1] + ring(1 / root3, -90, 3)]
    yield layer("hca", a, 120, np.concatenate(triangles), 3)


def chains_and_molecules() -> Iterator[Entry]:
    one = (True, False, False)
    chain = Atoms("C2", positions=[[0, 0, 0], [1.2, 0.7, 0]], cell=[2.4, 9, 9], pbc=one)
    yield "chain", chain, 1.5, {2}, 1, "zigzag chain"
    ladder = Atoms("C2", positions=[[0, 0, 0], [0, 1, 0]], cell=[1, 9, 9], pbc=one)
    yield "ladder", ladder, 1.1, {3}, 1, "square ladder"
    for n, m in ((4, 0), (5, 0), (6, 0), (8, 0), (10, 0), (3, 3), (4, 4), (5, 5), (6, 6), (10, 10)):
        tube = nanotube(n, m, length=1, bond=1.42)
        yield f"nanotube ({n},{m})", tube, 1.6, {3}, 1, "rolled-up graphene"
    yield "atom", Atoms("C", cell=[9, 9, 9]), 1.0, {0}, 0, "one atom"
    yield "dimer", Atoms("C2", positions=[[0, 0, 0], [1, 0, 0]]), 1.1, {1}, 0, "two atoms"
    for number in (3, 4, 5, 6, 8):
        corners = np.pad(ring(0.5 / np.sin(np.pi / number), 0, number), ((0, 0), (0, 1)))
        atoms = Atoms(f"C{number}", positions=corners)
        yield f"{number}-ring", atoms, 1.05, {2}, 0, "regular polygon"
    yield "C60", molecule("C60"), 1.6, {3}, 0, "ASE's molecule C60"


def frameworks() -> Iterator[Entry]:
    yield "pcu", bulk("Po", "sc", a=1), 1.05, {6}, 3, "simple cubic lattice"
    yield "bcu", bulk("Fe", "bcc", a=1), 0.9, {8}, 3, "body-centred cubic lattice"
    yield "fcu", bulk("Cu", "fcc", a=1), 0.8, {12}, 3, "face-centred cubic lattice"
    yield "dia", bulk("C", "diamond", a=3.567), 1.85, {4}, 3, "diamond"
    lon = np.array([[1 / 3, 2 / 3, 0.0625], [2 / 3, 1 / 3, 0.5625]])
    lon = np.concatenate([lon, -lon])
    cell = [2.52, 2.52, 4.12, 90, 90, 120]
    yield "lon", Atoms("C4", scaled_positions=lon, cell=cell, pbc=True), 1.85, {4}, 3, "lonsdaleite"
    # The Si atoms of SrSi2 (P4_332, 8c x,x,x) and of alpha-ThSi2 (I4_1/amd, 8e 0,0,z).
    srs = symmetric(508, [6.535] * 3 + [90] * 3, [[0.4228] * 3])
    yield "srs", srs, 2.6, {3}, 3, "Si in SrSi2"
    ths = symmetric(426, [4.134, 4.134, 14.375, 90, 90, 90], [[0, 0, 0.4165]])
    yield "ths", ths, 2.6, {3}, 3, "Si in alpha-ThSi2"
    sod = symmetric(529, [1, 1, 1, 90, 90, 90], [[0.25, 0.5, 0]])
    yield "sod", sod, 0.36, {4}, 3, "Kelvin's truncated octahedra"
    nbo = symmetric(517, [1, 1, 1, 90, 90, 90], [[0, 0.5, 0.5], [0.5, 0, 0]])
    yield "nbo", nbo, 0.55, {4}, 3, "NbO, one kind of atom for both"
    qtz = symmetric(443, [4.913, 4.913, 5.405, 90, 90, 120], [[0.4697, 0, 2 / 3]])
    yield "qtz", qtz, 3.3, {4}, 3, "Si in alpha-quartz"


def symmetric(hall: int, cell: list[float], sites: list[list[float]]) -> Atoms:
    """Carbon atoms on the orbits of sites, in the setting of a Hall number."""
    positions = np.concatenate([orbit(hall, site) for site in sites])
    return Atoms(f"C{len(positions)}", scaled_positions=positions, cell=cell, pbc=True)


def orbit(hall: int, site: list[float]) -> np.ndarray:
    """Fractional positions equivalent to a site, each once."""
    operations = spglib.get_symmetry_from_database(hall)
    images = operations["rotations"] @ np.array(site) + operations["translations"]
    kept: list[np.ndarray] = []
    for image in images:
        # The published coordinates have five digits.
        if not any(np.abs((image - k) - np.rint(image - k)).max() < 5e-4 for k in kept):
            kept.append(image)
    return np.array(kept)


def published() -> Iterator[tuple[str, NetComponent, str]]:
    """The nets of rcsr_nets.txt, from their edges where they are given, else bonded by distance."""
    for line in (HERE / "rcsr_nets.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, hall, *numbers = line.split()
        cell, rest = [float(x) for x in numbers[:6]], numbers[6:]
        sites, degrees, edges = [], [], []
        while rest and rest[0] != "-":
            degrees.append(int(rest[0]))
            sites.append([float(x) for x in rest[1:4]])
            rest = rest[4:]
        while rest:
            edges.append([float(x) for x in rest[1:7]])
            rest = rest[7:]
        if edges:
            graph = from_edges(int(hall), sites, edges)
            found = identify_graph(graph)
        else:
            found = identify_net(symmetric(int(hall), cell, sites), 1.02).components
        yield name, single(name, found, set(degrees), 3), "RCSR embedding"


def from_edges(hall: int, sites: list[list[float]], edges: list[list[float]]) -> PeriodicGraph:
    """Periodic graph from the symmetry images of published edges."""
    vertices = np.concatenate([orbit(hall, site) for site in sites])
    operations = spglib.get_symmetry_from_database(hall)
    pairs, shifts = [], []
    for edge in edges:
        for rotation, translation in zip(
            operations["rotations"], operations["translations"], strict=True
        ):
            ends = [rotation @ np.array(p) + translation for p in (edge[:3], edge[3:])]
            found = []
            for end in ends:
                difference = end - vertices
                cell = np.rint(difference)
                vertex = int(np.abs(difference - cell).max(axis=1).argmin())
                found.append((vertex, cell[vertex].astype(int)))
            pairs.append((found[0][0], found[1][0]))
            shifts.append(found[1][1] - found[0][1])
    return PeriodicGraph.build(len(vertices), np.array(pairs), np.array(shifts))


def single(
    name: str, found: tuple[NetComponent, ...], degrees: set[int], dimension: int
) -> NetComponent:
    """The only net of a structure, or an error that says what is wrong with it."""
    if len(found) != 1 or found[0].multiplicity != 1:
        raise SystemExit(f"{name}: expected one net, found {len(found)}")
    net = found[0]
    if net.dimension != dimension or set(net.coordination) != degrees:
        raise SystemExit(
            f"{name}: dimension {net.dimension}, coordination {set(net.coordination)};"
            f" expected {dimension}, {degrees}"
        )
    return net


def entries() -> Iterator[tuple[str, str, int, bool, str]]:
    """Name, key, dimension, exact, source of every net; built twice means checked twice."""
    known: dict[str, str] = {}
    built = [
        (name, single(name, identify_net(atoms, cutoff).components, degrees, dimension), source)
        for make in (frameworks, layers, chains_and_molecules)
        for name, atoms, cutoff, degrees, dimension, source in make()
    ]
    for name, net, source in [*built, *published()]:
        if name in known:
            if known[name] != net.key:
                raise SystemExit(f"{name}: two constructions, two keys")
            continue
        known[name] = net.key
        yield name, net.key, net.dimension, net.exact, source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the file, write nothing")
    text = named_table(entries())
    if parser.parse_args().check:
        same = TABLE.read_text("utf-8") == text
        print("up to date" if same else f"{TABLE} differs: run this script without --check")
        return 0 if same else 1
    TABLE.write_text(text, "utf-8")
    print(f"{TABLE}: {len(json.loads(text)['nets'])} nets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
