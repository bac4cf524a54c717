"""Crystal structures by name, built with ASE from published parameters.

Coordinates and settings are those of the usual descriptions (International Tables, origin
choice as noted), not of this package.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from ase import Atoms
from ase.spacegroup import crystal

# name: space group [origin 2]: free cell parameters (Å, degrees)
#     multiplicity, species and coordinates of each site
TABLE = """
graphite: 194: 2.46 6.7
    2 C 0 0 1/4
    2 C 1/3 2/3 1/4
rhombohedral graphite: 166: 2.46 10.05
    6 C 0 0 1/6
diamond: 227: 3.567
    8 C 0 0 0
lonsdaleite: 194: 2.52 4.12
    4 C 1/3 2/3 0.0629
K4 carbon: 214: 4.082
    8 C 1/8 1/8 1/8
bct-C4: 139: 4.329 2.483
    8 C 0.1803 0.1803 0
copper: 225: 3.615
    4 Cu 0 0 0
iron: 229: 2.866
    2 Fe 0 0 0
polonium: 221: 3.359
    1 Po 0 0 0
magnesium: 194: 3.209 5.211
    2 Mg 1/3 2/3 1/4
white tin: 141: 5.831 3.182
    4 Sn 0 0 0
arsenic: 166: 3.76 10.548
    6 As 0 0 0.2271
selenium: 152: 4.368 4.958
    3 Se 0.2254 0 1/3
black phosphorus: 64: 3.31 10.48 4.37
    8 P 0 0.1017 0.0798
alpha manganese: 217: 8.913
    2 Mn 0 0 0
    8 Mn 0.317 0.317 0.317
    24 Mn 0.357 0.357 0.034
    24 Mn 0.089 0.089 0.282
rock salt: 225: 5.64
    4 Na 0 0 0
    4 Cl 1/2 1/2 1/2
cesium chloride: 221: 4.123
    1 Cs 0 0 0
    1 Cl 1/2 1/2 1/2
zincblende: 216: 5.409
    4 Zn 0 0 0
    4 S 1/4 1/4 1/4
wurtzite: 186: 3.25 5.207
    2 Zn 1/3 2/3 0
    2 O 1/3 2/3 0.3819
fluorite: 225: 5.463
    4 Ca 0 0 0
    8 F 1/4 1/4 1/4
nickeline: 194: 3.619 5.034
    2 Ni 0 0 0
    2 As 1/3 2/3 1/4
cuprite: 224 origin 2: 4.27
    4 Cu 0 0 0
    2 O 1/4 1/4 1/4
pyrite: 205: 5.416
    4 Fe 0 0 0
    8 S 0.385 0.385 0.385
marcasite: 58: 4.443 5.425 3.387
    2 Fe 0 0 0
    4 S 0.2 0.378 0
cadmium iodide: 164: 4.24 6.84
    1 Cd 0 0 0
    2 I 1/3 2/3 0.249
molybdenite 2H: 194: 3.161 12.295
    2 Mo 1/3 2/3 1/4
    4 S 1/3 2/3 0.621
hexagonal boron nitride: 194: 2.504 6.661
    2 B 1/3 2/3 1/4
    2 N 2/3 1/3 1/4
magnesium diboride: 191: 3.086 3.524
    1 Mg 0 0 0
    2 B 1/3 2/3 1/2
A15 chromium silicide: 223: 4.556
    2 Si 0 0 0
    6 Cr 1/4 0 1/2
Laves MgCu2: 227 origin 2: 7.034
    8 Mg 1/8 1/8 1/8
    16 Cu 1/2 1/2 1/2
Laves MgZn2: 194: 5.221 8.567
    4 Mg 1/3 2/3 0.062
    2 Zn 0 0 0
    6 Zn 0.8305 0.661 1/4
skutterudite: 204: 8.204
    8 Co 1/4 1/4 1/4
    24 As 0 0.3442 0.1514
rutile: 136: 4.594 2.959
    2 Ti 0 0 0
    4 O 0.3053 0.3053 0
anatase: 141: 3.785 9.514
    4 Ti 0 0 0
    8 O 0 0 0.2081
brookite: 61: 9.184 5.447 5.145
    8 Ti 0.1289 0.0972 0.8628
    8 O 0.0095 0.1491 0.1835
    8 O 0.2314 0.111 0.5366
baddeleyite: 14: 5.1505 5.2116 5.3173 90 99.23 90
    4 Zr 0.2754 0.0395 0.2083
    4 O 0.07 0.3317 0.3447
    4 O 0.4496 0.7569 0.4792
low quartz: 154: 4.913 5.405
    3 Si 0.4697 0 2/3
    6 O 0.4135 0.2669 0.7858
high quartz: 180: 4.998 5.458
    3 Si 1/2 0 0
    6 O 0.2078 0.4156 1/2
low cristobalite: 92: 4.973 6.924
    4 Si 0.3003 0.3003 0
    8 O 0.2392 0.1044 0.1787
perovskite: 221: 3.905
    1 Sr 0 0 0
    1 Ti 1/2 1/2 1/2
    3 O 1/2 1/2 0
orthorhombic perovskite: 62: 5.611 7.669 5.351
    4 Gd 0.0628 1/4 0.984
    4 Fe 0 0 1/2
    4 O 0.467 1/4 0.1004
    8 O 0.3016 0.0505 0.6957
rhenium trioxide: 221: 3.734
    1 Re 0 0 0
    3 O 1/2 0 0
spinel: 227 origin 2: 8.083
    8 Mg 1/8 1/8 1/8
    16 Al 1/2 1/2 1/2
    32 O 0.2624 0.2624 0.2624
corundum: 167: 4.759 12.991
    12 Al 0 0 0.3522
    18 O 0.3063 0 1/4
ilmenite: 148: 5.087 14.042
    6 Fe 0 0 0.3553
    6 Ti 0 0 0.1464
    18 O 0.3172 0.0233 0.2451
calcite: 167: 4.989 17.062
    6 Ca 0 0 0
    6 C 0 0 1/4
    18 O 0.2568 0 1/4
aragonite: 62: 5.74 4.961 7.967
    4 Ca 0.2405 1/4 0.415
    4 C 0.0852 1/4 0.7622
    4 O 0.0956 1/4 0.9225
    8 O 0.0873 0.4735 0.6807
zircon: 141 origin 2: 6.607 5.982
    4 Zr 0 3/4 1/8
    4 Si 0 1/4 3/8
    16 O 0 0.0661 0.1953
scheelite: 88 origin 2: 5.243 11.376
    4 Ca 0 1/4 5/8
    4 W 0 1/4 1/8
    16 O 0.1507 0.0086 0.2106
garnet: 230: 11.459
    24 Mg 1/8 0 1/4
    16 Al 0 0 0
    24 Si 3/8 0 1/4
    96 O 0.0329 0.0502 0.6534
sodalite framework: 229: 8.84
    12 Si 1/4 0 1/2
    24 O 0 0.3556 0.3556
chalcopyrite: 122: 5.289 10.423
    4 Cu 0 0 0
    4 Fe 0 0 1/2
    8 S 0.2574 1/4 1/8
half Heusler: 216: 5.89
    4 Mg 0 0 0
    4 Ag 1/4 1/4 1/4
    4 As 3/4 3/4 3/4
Heusler: 225: 5.95
    4 Al 0 0 0
    4 Mn 1/2 1/2 1/2
    8 Cu 1/4 1/4 1/4
bismuth telluride: 166: 4.395 30.44
    6 Bi 0 0 0.4
    3 Te 0 0 0
    6 Te 0 0 0.2097
olivine LiFePO4: 62: 10.332 6.01 4.692
    4 Li 0 0 0
    4 Fe 0.2822 1/4 0.9747
    4 P 0.0948 1/4 0.4182
    4 O 0.0968 1/4 0.7428
    4 O 0.4571 1/4 0.206
    8 O 0.1656 0.0465 0.2848
albite-like triclinic: 2: 5.2 6.1 7.3 81 95 104
    2 Si 0.11 0.23 0.37
    2 O 0.31 0.71 0.05
    1 Na 0 0 0
"""


class Named(NamedTuple):
    """One structure as ASE needs it, and the multiplicities of its sites."""

    space_group: int
    setting: int
    cell: tuple[float, ...]
    multiplicities: tuple[int, ...]
    species: tuple[str, ...]
    coordinates: tuple[tuple[float, ...], ...]

    def atoms(self) -> Atoms:
        return crystal(
            list(self.species),
            basis=list(self.coordinates),
            spacegroup=self.space_group,
            cellpar=self.cell,
            setting=self.setting,
        )


def full_cell(space_group: int, values: list[float]) -> tuple[float, ...]:
    if len(values) == 6:
        return tuple(values)
    if len(values) == 3:
        return (*values, 90, 90, 90)
    gamma = 120 if 143 <= space_group <= 194 else 90
    return (values[0], values[0], values[-1], 90, 90, gamma)


def parse(table: str) -> dict[str, Named]:
    found: dict[str, Named] = {}
    head: list[str] = []
    sites: list[list[str]] = []
    for line in [*table.strip().splitlines(), "end: 1: 1"]:
        if line.startswith(" "):
            sites.append(line.split())
            continue
        if head:
            group, *origin = head[1].split()
            found[head[0]] = Named(
                int(group),
                2 if origin else 1,
                full_cell(int(group), [float(value) for value in head[2].split()]),
                tuple(int(site[0]) for site in sites),
                tuple(site[1] for site in sites),
                tuple(tuple(float(Fraction(v)) for v in site[2:]) for site in sites),
            )
        head, sites = line.split(":"), []
    return found


STRUCTURES = parse(TABLE)
