"""What a figure was measured on, in words fit for a document: no names of hosts."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path


def describe_machine(cores: int | None = None) -> str:
    """Such as "1 core of an Intel Xeon Processor, no GPU"; `cores` in use, default: all usable."""
    import torch

    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    number = usable if cores is None else cores
    name = _processor()
    article = "an" if name[0].lower() in "aeio" else "a"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{number} core{'s' * (number > 1)} of {article} {name}, {gpu}"


def peak_memory(device: str = "cpu") -> float:
    """Largest memory that this process has held so far, MiB; on a CUDA device, that of tensors."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                words = line.partition(":")[2].replace("(R)", "").replace("(TM)", "")
                return " ".join(words.partition("@")[0].split())
    return platform.processor() or platform.machine() or "unknown processor"
