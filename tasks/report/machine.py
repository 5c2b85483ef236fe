"""The machine that a report was made on."""

import os
import platform
from importlib.metadata import version

from tasks.report.summary import Figures

PACKAGES = ("torch", "distributed", "prefect", "hydra-core", "webdataset", "numpy")


def machine_facts() -> Figures:
    """Cores, memory and versions, as far as they bear on the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
