"""`get_calculator`: every way to name where energies come from."""

from __future__ import annotations

import importlib.util
import json
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from asexlatent.screening import describe_calculator, get_calculator, load_mace_model
from asexlatent.screening.mace_model import SHIPPED, build_mace

warnings.filterwarnings("ignore", module="(mace|e3nn|torch).*")


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(1)
    architecture = json.loads((SHIPPED / "model.json").read_text())["architecture"]
    return build_mace({**architecture, "hidden_irreps": "4x0e", "correlation": 2}, torch.float32)


def energy(calculator):
    atoms = bulk("C")
    atoms.calc = calculator
    return atoms.get_potential_energy()


def stand_in(module, cache, size=None):
    """Put a model where MACE looks for one it has downloaded."""
    from mace.calculators.foundations_models import mace_mp_urls

    name = Path(mace_mp_urls[size or "medium-mpa-0"]).name
    folder = cache / "mace"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "".join(c for c in name if c.isalnum() or c == "_")
    torch.save(module, path)
    return path


@pytest.fixture
def offline(monkeypatch):
    def refused(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.usefixtures("offline")
class TestShipped:
    def test_default(self):
        calculator = get_calculator()
        assert isinstance(calculator, Calculator)
        assert np.isfinite(energy(calculator))
        model = load_mace_model()
        assert describe_calculator(calculator) == describe_calculator() == model.description
        assert model.sha256[:12] in describe_calculator()

    def test_same_as_by_its_folder(self):
        assert energy(get_calculator(SHIPPED)) == energy(get_calculator())

    def test_precision(self):
        double, single = get_calculator(), get_calculator(dtype="float32")
        assert energy(double) != energy(single)
        assert energy(double) == pytest.approx(energy(single), abs=1e-3)

    def test_unknown_precision(self):
        with pytest.raises(ValueError, match="float64 or float32, not 'float16'"):
            get_calculator(dtype="float16")


class TestFoundation:
    @pytest.mark.usefixtures("offline")
    @pytest.mark.parametrize("size", [None, "small", "medium", "large"])
    def test_from_the_cache(self, module, tmp_path, monkeypatch, size):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        path = stand_in(module, tmp_path, size)
        name = "mace-mp" if size is None else f"mace-mp-{size}"
        calculator = get_calculator(name)
        assert energy(calculator) == pytest.approx(energy(get_calculator(path)), abs=1e-12)
        assert describe_calculator(calculator).startswith(f"{name} (sha256 ")
        assert describe_calculator(name) == describe_calculator(calculator)

    @pytest.mark.usefixtures("offline")
    def test_same_as_mace_itself(self, module, tmp_path, monkeypatch, capsys):
        from mace.calculators import mace_mp

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        stand_in(module, tmp_path, "small")
        own = energy(get_calculator("mace-mp-small"))
        assert capsys.readouterr().out == ""
        reference = mace_mp("small", device="cpu", default_dtype="float64")
        assert own == pytest.approx(energy(reference), abs=1e-12)

    @pytest.mark.usefixtures("offline")
    def test_without_network(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(RuntimeError) as caught:
            get_calculator("mace-mp-small")
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith("mace-mp-small cannot be had (")
        for alternative in ("path of a model file", "chgnet", "ships with the package"):
            assert alternative in message

    def test_unknown_size(self):
        with pytest.raises(ValueError, match=r"unknown model 'mace-mp-huge'; .*mace-mp-small"):
            get_calculator("mace-mp-huge")


def test_path(module, tmp_path):
    path = tmp_path / "mine.model"
    torch.save(module, path)
    for name in (path, str(path)):
        calculator = get_calculator(name)
        assert np.isfinite(energy(calculator))
        assert describe_calculator(calculator).startswith("mine.model (sha256 ")


def test_a_file_goes_before_a_name(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(module, "mace-mp-small")
    assert np.isfinite(energy(get_calculator("mace-mp-small")))


def test_calculator_comes_back_as_it_is():
    calculator = EMT()
    assert get_calculator(calculator) is calculator
    assert describe_calculator(calculator) == "EMT"


def test_settings_of_a_calculator_are_told():
    found = describe_calculator(LennardJones(sigma=3.0, rc=10.0))
    assert found.startswith("LennardJones {")
    assert "'sigma': 3.0" in found
    assert "'rc': 10.0" in found
    assert "epsilon" not in found  # left as ASE has it


def test_what_is_no_calculator():
    with pytest.raises(ValueError, match="3 is no calculator"):
        get_calculator(3)
    with pytest.raises(ValueError, match="no such model: nothing"):
        get_calculator("nothing")


def test_chgnet_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "chgnet" else find(name)
    )
    with pytest.raises(ImportError, match=r"pip install asexlatent\[chgnet\]"):
        get_calculator("chgnet")


def test_chgnet():
    pytest.importorskip("chgnet")
    calculator = get_calculator("chgnet")
    assert energy(calculator) / 2 == pytest.approx(-9.06, abs=0.02)
    assert describe_calculator(calculator).startswith("CHGNet 0")
    assert describe_calculator("chgnet") == describe_calculator(calculator)
