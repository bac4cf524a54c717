"""Names from CrystalNets.jl (Zoubritzky and Coudert, SciPost Chem. 1, 005, 2022), if it is there.

It needs Julia and the Python package ``juliacall`` with CrystalNets in its project. None of them is
required by this package, and here this module has been run against a stand-in only.
"""

from __future__ import annotations

from typing import Any

from asexlatent.topology.graph import PeriodicGraph

# How CrystalNets prints a genome that has no name.
_NO_NAME = ("UNKNOWN", "unstable", "non-periodic", "FAILED")


class CrystalNetsMissing(ImportError):
    """CrystalNets.jl could not be loaded."""


class CrystalNets:
    """A loaded CrystalNets.jl.

    Raises
    ------
    CrystalNetsMissing
        If ``juliacall`` or the Julia package is not installed.
    """

    def __init__(self) -> None:
        try:
            import juliacall
        except ImportError:
            raise CrystalNetsMissing(
                "backend 'crystalnets' needs Julia: pip install juliacall, then add CrystalNets to"
                " its juliapkg.json; the backend 'native' needs neither"
            ) from None
        try:
            self._julia: Any = juliacall.newmodule("asexlatent")
            self._julia.seval("using CrystalNets, PeriodicGraphs")
            self._julia.seval("CrystalNets.toggle_warning(false)")
            self._julia.seval("CrystalNets.toggle_export(false)")
            self._genome = self._julia.seval(
                "text -> string(topological_genome(CrystalNet(PeriodicGraph(text))))"
            )
        except Exception as error:  # whatever class Julia's error is wrapped in
            raise CrystalNetsMissing(f"Julia runs, but CrystalNets did not load: {error}") from None

    def name(self, graph: PeriodicGraph) -> str | None:
        """Name of a connected net in the archive of CrystalNets, or None.

        Parameters
        ----------
        graph : PeriodicGraph
            Passed on as it is: the bonds are ours, only the identification is not.
        """
        answer = str(self._genome(graph.text)).strip()
        if not answer or answer[0].isdigit() or answer.startswith(_NO_NAME):
            return None
        return answer
