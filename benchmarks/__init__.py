"""Comparisons that print a table; the compared programs are measured in the same run."""

import subprocess
import sys
from pathlib import Path


def commit() -> str:
    """Returns the commit of this checkout, "unknown" without git; `-dirty` if it was changed."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(git, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def default_device() -> tuple[str, str]:
    """Returns platform and name of the device that JAX uses, determined in a separate process."""
    question = "import jax; device = jax.devices()[0]; print(device.platform, device.device_kind)"
    asked = subprocess.check_output([sys.executable, "-c", question], text=True)
    platform, kind = asked.splitlines()[-1].split(maxsplit=1)
    return platform, kind
