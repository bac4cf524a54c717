"""What the README and the documentation tell a user to do works, and what they point to exists."""

from __future__ import annotations

import importlib
import re
import shlex
from importlib import resources
from pathlib import Path

import pytest
from ase.io import read, write

from asexlatent import SymmetricCrystal
from asexlatent.cli.generate import main as generate_command
from asexlatent.cli.refine import main as refine_command

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
WITH_CODE = ["README.md", "docs/quickstart.md", "docs/symmetry.md", "docs/ase.md"]
WITH_CODE += ["docs/data.md"]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINKED = re.compile(r"\]\(([^)#]+?)(#[\w-]+)?\)")


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A folder with the files that the examples read."""
    example = resources.files("asexlatent") / "examples" / "random_sp2.extxyz"
    frames = read(str(example), index="27:30")
    write(tmp_path / "candidates.extxyz", frames)
    SymmetricCrystal.from_atoms(frames[1]).to_cif(tmp_path / "candidate.cif")
    write(tmp_path / "random_sp2.extxyz", frames)
    monkeypatch.chdir(tmp_path)
    refine_command(["random_sp2.extxyz", "-q", "--restarts", "0"])
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    found = FENCED.findall((ROOT / page).read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


@pytest.mark.parametrize("page", WITH_CODE)
def test_python_blocks_run(page, user_folder, capsys):
    code = blocks(page, "python")
    assert code
    for number, block in enumerate(code):
        exec(compile(block, f"{page}, block {number}", "exec"), {"__name__": "__main__"})


def test_readme_commands(user_folder):
    """The shell lines of the README are understood; those that use the package are run."""
    install, test, use, make = blocks("README.md", "sh")
    for line in (install, test):
        assert line.count("\n") == 1
        steps = line.split(" && ")
        assert steps[2] == "pip install torch==2.13.0"
    example = shlex.split(install.split(" && ")[-1])
    assert (ROOT / example[1]).is_file()
    assert refine_command(shlex.split(use)[1:]) == 0
    written = read(user_folder / "refined" / "refined.extxyz", index=":")
    assert [atoms.info["asx_index"] for atoms in written] == [0, 1, 2]
    *generate, screen = (shlex.split(line) for line in make.splitlines())
    for line in generate:
        assert line[1:3] == ["-n", "1000"]
        assert generate_command(["-n", "4", *line[3:]]) == 0
        assert (user_folder / line[-1]).is_file()
    assert refine_command(screen[1:]) == 0
    assert (user_folder / "candidates-asexlatent" / "ranked.db").is_file()


def test_gate_runs_the_readme_tests():
    command = blocks("README.md", "sh")[1].split(" && ")[-1].strip()
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    text = FENCED.sub("", text)
    for target, _ in LINKED.findall(text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("package", ["symmetry", "descriptor", "optimize"])
def test_public_names_are_in_the_reference(package):
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    public = importlib.import_module(f"asexlatent.{package}").__all__
    described = set(re.findall(r"^\.\. auto\w+:: (\w+)$", reference, re.MULTILINE))
    assert {name for name in public if not name.isupper()} <= described


def test_scripts_that_are_named_exist():
    for page in PAGES:
        for script in re.findall(r"scripts/\w+\.py", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
