"""A Dask cluster of several processes on this machine, workers killed while they run."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from parallel_cases import Squares

from asexlatent.cli.refine import main
from asexlatent.cluster import connect
from asexlatent.optimize import refine
from asexlatent.parallel import WorkersError, ordered, over_chunks
from asexlatent.symmetry import RandomCrystals

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
CHUNKS = [(k, list(range(8 * k, 8 * k + 8))) for k in range(10)]
EXAMPLE = Path(__file__).parents[1] / "asexlatent" / "examples" / "random_sp2.extxyz"


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    # On a busy machine a worker takes longer to come back than the 15 s after which it is given up.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "10m"})
    with (
        patient,
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as running,
    ):
        yield running


def pids(address: str) -> list[int]:
    with distributed.Client(address, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def killed_while_it_runs(address: str, deaths: int, pause: float) -> threading.Thread:
    """Kill a worker now and then; Dask starts another in its place."""

    def kill() -> None:
        for _ in range(deaths):
            time.sleep(pause)
            os.kill(pids(address)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.slow
def test_workers_killed_while_they_run(cluster):
    before = set(pids(cluster.scheduler_address))
    with connect(cluster.scheduler_address) as (executor, in_flight):
        assert in_flight() >= 2
        thread = killed_while_it_runs(cluster.scheduler_address, deaths=2, pause=1.0)
        job = Squares(wait=0.7)
        results = [r for _, r in ordered(over_chunks(job, CHUNKS, executor, in_flight=in_flight))]
        thread.join()
    assert results == [[n**2 for n in items] for _, items in CHUNKS]
    assert set(pids(cluster.scheduler_address)) != before


@pytest.mark.slow
def test_an_item_that_kills_its_workers_is_given_up(cluster, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    chunks = [(0, [11, 17]), (1, [13])]
    with connect(cluster.scheduler_address) as (executor, _):
        results = dict(over_chunks(Squares(deadly=frozenset({13})), chunks, executor))
    assert results[0] == [121, 289]
    assert "its worker died several times" in results[1][0]
    assert "leave it out" in results[1][0]


@pytest.mark.slow
def test_refine_on_a_cluster_changes_no_bit(cluster):
    given = list(RandomCrystals("C", max_atoms=30, seed=2).crystals(12))
    here = refine(given, chunk_size=2, steps=20, restarts=1)
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        there = refine(
            given, executor=client.get_executor(pure=False), chunk_size=2, steps=20, restarts=1
        )
    for a, b in zip(here, there, strict=True):
        assert (a.status, a.reason, a.loss, a.steps) == (b.status, b.reason, b.loss, b.steps)
        assert np.array_equal(a.crystal.free_variables, b.crystal.free_variables)


@pytest.mark.slow
def test_the_command_on_a_cluster_whose_workers_die(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("in.extxyz", read(EXAMPLE, ":12"))
    words = ["in.extxyz", "-q", "--chunk-size", "2", "--restarts", "2", "--steps", "60"]
    assert main([*words, "-o", "here", "--workers", "1"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "asexlatent.cli.refine", *words, "-o", "there"]
        + ["--scheduler", cluster.scheduler_address]
    )
    deadline = time.monotonic() + 120
    while not list(Path("there/parts").glob("*.json.gz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pids(cluster.scheduler_address)[0], signal.SIGKILL)
    assert process.wait(timeout=200) == 0
    for name in ("refined.extxyz", "valid.extxyz", "table.csv"):
        assert Path("here", name).read_bytes() == Path("there", name).read_bytes()
    counts = [json.loads(Path(f, "summary.json").read_text())["counts"] for f in ("here", "there")]
    assert counts[0] == counts[1]


def test_nobody_answers():
    with pytest.raises(WorkersError, match="no Dask scheduler answers at tcp://127"):
        connect("tcp://127.0.0.1:9", timeout=0.5).__enter__()


def test_the_command_says_that_nobody_answers(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write("in.extxyz", read(EXAMPLE, ":2"))
    monkeypatch.setattr("asexlatent.cluster.connect.__wrapped__.__defaults__", (0.5,))
    assert main(["in.extxyz", "-q", "-o", "out", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "--scheduler: no Dask scheduler answers" in capfd.readouterr().err
    assert main(["in.extxyz", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"]) == 2
