from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from parallel_cases import Squares, environment_of_a_worker, sleep_and_note

from asexlatent.parallel import (
    LocalWorkers,
    WorkerDied,
    WorkersError,
    on_accelerator,
    ordered,
    over_chunks,
    usable_cores,
)

CHUNKS = [(k, list(range(8 * k, 8 * k + 8))) for k in range(6)]
EXPECTED = [[n**2 for n in items] for _, items in CHUNKS]


def in_order(job, executor=None, **options) -> list:
    return [result for _, result in ordered(over_chunks(job, CHUNKS, executor, **options))]


@pytest.mark.parametrize("kind", ["none", "own", "threads", "processes"])
def test_any_executor_gives_the_same(kind):
    if kind == "none":
        assert in_order(Squares()) == EXPECTED
        return
    make = {
        "own": lambda: LocalWorkers(2),
        "threads": lambda: ThreadPoolExecutor(3),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }[kind]
    with make() as executor:
        assert in_order(Squares(), executor) == EXPECTED


def test_only_so_many_chunks_are_read_ahead():
    taken, given = 0, 0

    def chunks():
        nonlocal taken
        for chunk in CHUNKS * 4:
            taken += 1
            yield chunk[0] + taken * 100, chunk[1]

    with ThreadPoolExecutor(2) as executor:
        for _ in over_chunks(Squares(), chunks(), executor, in_flight=3):
            given += 1
            assert taken <= given + 3
    assert given == 24


def test_a_worker_that_dies_once_costs_nothing_else(tmp_path):
    job = Squares(once={11: str(tmp_path / "a"), 30: str(tmp_path / "b")})
    with LocalWorkers(2) as workers:
        assert in_order(job, workers) == EXPECTED


@pytest.mark.parametrize("kind", ["own", "processes"])
def test_the_item_that_kills_workers_is_found(kind):
    make = {
        "own": lambda: LocalWorkers(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }[kind]
    with make() as executor:
        results = in_order(Squares(deadly=frozenset({13, 40})), executor)
    for (_, items), expected, result in zip(CHUNKS, EXPECTED, results, strict=True):
        for item, wanted, got in zip(items, expected, result, strict=True):
            if item in (13, 40):
                assert "signal 11" in got
                assert "leave it out" in got
            else:
                assert got == wanted


def test_workers_killed_from_outside_while_they_run():
    with LocalWorkers(2) as workers:
        stop = threading.Event()

        def assassin() -> None:
            for _ in range(3):
                if stop.wait(0.5):
                    return
                for pid in workers.pids()[:1]:
                    os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=assassin)
        thread.start()
        try:
            # chunks of one item are given up after two deaths only: these are of eight
            assert in_order(Squares(wait=0.3), workers) == EXPECTED
        finally:
            stop.set()
            thread.join()


def test_an_error_of_the_job_ends_the_run():
    with LocalWorkers(1) as workers, pytest.raises(ArithmeticError, match="20 is not liked"):
        in_order(Squares(broken=frozenset({20})), workers)


def test_what_cannot_be_sent_is_said():
    with LocalWorkers(1) as workers:
        with pytest.raises(WorkersError, match="cannot be sent"):
            workers.submit(lambda: 1).result()
        assert workers.submit(abs, -3).result() == 3


def test_a_wish_to_stop_is_heard():
    begun = time.monotonic()
    with LocalWorkers(2) as workers:
        seen = []
        stop = lambda: time.monotonic() - begun > 1.5  # noqa: E731
        for number, _ in over_chunks(Squares(wait=60), CHUNKS, workers, stop=stop):
            seen.append(number)
        workers.kill()
        assert seen == []
        assert not workers.pids()
    assert time.monotonic() - begun < 20


def test_one_thread_per_worker_and_clean_answers():
    with LocalWorkers(1) as workers:
        threads, variable, folder = workers.submit(environment_of_a_worker).result()
    assert (threads, variable, folder) == (1, "1", os.getcwd())


def test_calls_after_the_end_are_refused():
    workers = LocalWorkers(2)
    workers.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        workers.submit(abs, 1)
    with pytest.raises(ValueError, match="at least one"):
        LocalWorkers(0)
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_a_death_concerns_its_own_call_only():
    with LocalWorkers(2) as workers:
        good = workers.submit(time.sleep, 1.0)
        bad = workers.submit(os._exit, 7)
        with pytest.raises(WorkerDied, match="exit code 7"):
            bad.result()
        assert good.result() is None
        assert workers.submit(abs, -1).result() == 1


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Also when it is killed and they are in the middle of something."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from asexlatent.parallel import LocalWorkers\n"
        "from parallel_cases import sleep_and_note\n"
        "LocalWorkers(1).submit(sleep_and_note, sys.argv[2], 600).result()\n"
    )
    note = tmp_path / "pid"
    here = str(Path(sleep_and_note.__code__.co_filename).parent)
    parent = subprocess.Popen([sys.executable, "-c", script, here, str(note)])
    for _ in range(300):
        time.sleep(0.1)
        if note.exists() and note.read_text():
            break
    pid = int(note.read_text())
    parent.kill()
    parent.wait()
    for _ in range(100):
        time.sleep(0.1)
        if not _runs(pid):
            return
    raise AssertionError("the worker has outlived its parent")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_starting_workers_loads_no_torch():
    """Nor does asking whether a device is an accelerator: some commands need neither."""
    code = (
        "import sys; from asexlatent.cli.engine import Engine\n"
        "with Engine(2, None) as engine: assert engine.start(True)[0] is not None\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_an_accelerator_is():
    import torch

    for cpu in (None, "cpu", "cpu:0", torch.device("cpu")):
        assert not on_accelerator(cpu)
    for other in ("cuda", "cuda:1", torch.device("cuda", 0), "mps"):
        assert on_accelerator(other)
