from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from asexlatent.cli.refine import build_parser
from asexlatent.cli.settings import Settings, UsageError


def test_yaml_round_trip(tmp_path):
    settings = Settings(
        inputs=("a.traj@:10", "folder/Å.cif"), target="x.cif:C", rcut=2.3, space_group=7, plot=True
    )
    path = tmp_path / "config.yaml"
    path.write_text(settings.dump(), encoding="utf-8")
    assert Settings.load(path) == settings
    assert Settings.load(path, rcut=2.1).rcut == 2.1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stepz: 3", "unknown setting 'stepz'; did you mean steps?"),
        ("12: 3", "unknown setting 12 (known: inputs, target"),
        ("steps: many", "steps must be a whole number, not 'many'"),
        ("steps: 2.5", "steps must be a whole number"),
        ("steps: true", "steps must be a whole number"),
        ("steps: -1", "steps must be at least 0"),
        ("steps: null", "steps must be a whole number"),
        ("space_group: 231", "space_group must be 1 to 230, not 231"),
        ("ftol: .nan", "ftol must be finite"),
        ("ftol: -1", "ftol must be finite and not negative"),
        ("symprec: 0", "symprec must be above zero"),
        ("bad_sites: ignore", "bad_sites must be fail or drop, not 'ignore'"),
        ("batch_size: 0", "batch_size must be auto or a whole number"),
        ("plot: 1", "plot must be true or false"),
        ("target: ''", "target must be a text"),
        ("inputs: [1]", "inputs must be a path"),
        ("- steps", "must be a list of 'name: value'"),
        ("{", "is not YAML"),
    ],
)
def test_bad_config_is_one_clear_line(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Settings.load(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message


def test_missing_config(tmp_path):
    with pytest.raises(UsageError, match="cannot read the config"):
        Settings.load(tmp_path / "none.yaml")


def test_null_means_by_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("rcut: null\nworkers: null\n")
    assert Settings.load(path) == Settings()
    path.write_text("")
    assert Settings.load(path) == Settings()


def test_every_setting_is_an_option_with_help():
    text = build_parser().format_help()
    for option in fields(Settings):
        if option.name != "inputs":
            assert f"--{option.name.replace('_', '-')}" in text


def test_defaults_are_those_of_the_library():
    from asexlatent.descriptor import PowerSpectrum
    from asexlatent.optimize import RefinementRun

    library = inspect.signature(RefinementRun.__init__).parameters
    same = {"solver": "solver", "steps": "steps", "ftol": "fmax", "symprec": "symprec"}
    same |= {"space_group": "space_group", "batch_size": "batch_size", "target": "environment"}
    same |= {"memory": "memory", "seed": "seed"}
    for mine, theirs in same.items():
        assert getattr(Settings(), mine) == library[theirs].default, mine
    descriptor = inspect.signature(PowerSpectrum.__init__).parameters
    text = " ".join(build_parser().format_help().split())
    assert f"radial functions (default: {descriptor['nmax'].default})" in text
    assert f"angular momentum (default: {descriptor['lmax'].default})" in text
    assert f"in 1/Å² (default: {descriptor['alpha'].default})" in text


def test_the_docs_show_every_option_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    shown = " ".join(text.split())
    for group in build_parser()._action_groups[2:]:
        for action in group._group_actions:
            assert action.option_strings[-1] in shown
            assert " ".join(action.help.split()) in shown, f"docs/command-line.md: {action.help}"
