"""The script that kills the command at random moments, with a few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asexlatent.screening.mace_model import SHIPPED

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_three_kills(workers):
    words = ["--kills", "3", "--candidates", "8", "--workers", str(workers)]
    words += ["--screen"] if SHIPPED.is_dir() else []
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills, " in done.stdout
    assert ", 0 of them different" in done.stdout
