"""What a user of asexlatent-refine sees of each input of the corpus of bad ones, as a table.

``python scripts/bad_input_table.py > docs/bad-input.md`` writes the page of the documentation.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from ase.io import read

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cli"))

from bad_input_corpus import CASES, Case

from asexlatent.cli.refine import main as refine

HEAD = """\
# Bad input

What `asexlatent-refine` says of inputs that are wrong. What can be read is refined, and stands in
its place in the output beside what cannot, whose frame has the status `failed` and the reason. The
inputs are those of `tests/cli/bad_input_corpus.py`; this page was written by
`python scripts/bad_input_table.py`. Most of them hold two good crystals besides: *done* counts
candidates that were refined, *failed* those that were not.

| input | what the user sees | exit code | done | failed |
|---|---|---|---|---|"""


def main() -> int:
    print(HEAD)
    for case in CASES:
        print(line(case))
    return 0


def line(case: Case) -> str:
    """One line of the table."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return _line(case)
        finally:
            os.chdir(here)


def _line(case: Case) -> str:
    words = case.build()
    output = [] if "-o" in words else ["-o", "out"]
    said, quiet = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(quiet):
        code = refine([*words, *output, "--steps", "2", "--restarts", "0", "--workers", "1"])
    lines = said.getvalue().splitlines()
    done = failed = 0
    if Path("out/refined.extxyz").exists() and Path("out/refined.extxyz").stat().st_size:
        statuses = [frame.info["asx_status"] for frame in read("out/refined.extxyz", ":")]
        failed = statuses.count("failed")
        done = len(statuses) - failed
    if not lines and Path("out/summary.json").exists():
        notes = [text for text in Path("out/log").read_text().splitlines() if "nearer" in text]
        lines = [f"(in the log) {text.split('INFO ')[-1]}" for text in notes] or ["nothing"]
        assert json.loads(Path("out/summary.json").read_text())["counts"]["candidates"] == done
    text = "<br>".join(one.removeprefix("asexlatent-refine: ").replace("|", "\\|") for one in lines)
    return f"| {case.about} | {text} | {code} | {done} | {failed} |"


if __name__ == "__main__":
    sys.exit(main())
