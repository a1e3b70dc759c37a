"""A malloc that suits training on a CPU."""

import os
import sys

# On a CPU, XLA allocates the arrays of every step anew. By default glibc returns them to the system
# after the step, so that each one has thousands of page faults. With these settings it keeps what
# is freed, also by threads (top_pad: it would unmap their heaps once empty), in huge pages where
# the system grants them on request. Old versions take no such mmap_threshold, but mmap_max. All
# threads in one arena would wait for each other in compilation.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.mmap_max=0"
    ":glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864"
)


def malloc_hint(backend: str) -> str:
    """What makes training on the backend `cpu` faster on Linux, or '' if malloc is set already.

    glibc takes settings from the environment alone, when a program starts.
    """
    is_set = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if backend != "cpu" or sys.platform != "linux" or is_set:
        return ""
    return f"a sixth faster on a CPU: export GLIBC_TUNABLES={TUNABLES}"
