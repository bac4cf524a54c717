"""Text of the card that goes with the energy model."""

from __future__ import annotations


def card(settings: dict, number: int, report: list[str]) -> str:
    """Return CARD.md: what the model is, what it is not, how it was made."""
    training, shape = settings["training"], settings["architecture"]
    held_out = "\n".join(report)
    first = ", after those of a first model" if training["started_from"] else ""
    return f"""# {settings["name"]}

A MACE network ({number} weights, {shape["hidden_irreps"]}, two layers, cutoff {shape["r_max"]} Å)
that gives energies, forces and stresses of carbon.

## What it is

A copy, made small and fast, of what CHGNet 0.3.0 says about carbon: CHGNet labelled structures of
this project's own making, and this network learned them. Its energies are on CHGNet's scale (PBE
with the corrections of the Materials Project, eV).

It is made for one thing: to relax and to rank thousands of three-coordinated carbon networks.

## What it is not

- It is no better than its teacher, and differs from it. Compare few leading candidates with a
  calculation from first principles before believing their order.
- It knows no dispersion, no magnetism, no charge, and no element but carbon.
- It is not made for molecular dynamics at high temperature, for phonons, surfaces, defects, or
  pressures beyond some 100 GPa. Below 1 Å between atoms nothing was learned; a screened nuclear
  repulsion (ZBL) keeps atoms apart.

## How it was made

`scripts/make_energy_structures.py`, `label_energy_structures.py`, `train_energy_model.py`, in the
order that `docs/energies.md` gives: {training["structures"]} structures with {training["atoms"]}
atoms, {training["epochs"]} epochs, seed {training["seed"]}{first}. No structure of a database of
known carbon allotropes took part in training or in the choice of the settings.

## Errors on what was held out, against CHGNet

{training["held_out_structures"]} structures of groups that had no part in training; mean absolute
errors.

```
{held_out}
```
"""
