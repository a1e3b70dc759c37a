"""Comparisons that print a table; the compared programs are measured in the same run."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Returns the commit of this checkout, "unknown" without git; `-dirty` if it was changed."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(git, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
