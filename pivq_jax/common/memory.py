"""A malloc that suits training on a CPU."""

import os
import sys

# On a CPU, XLA allocates the arrays of every step anew. By default glibc returns them to the system
# after the step, so that each one has thousands of page faults. With these settings, a single heap
# keeps what is freed, in huge pages where the system grants them on request.
_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0"
    ":glibc.malloc.trim_threshold=4294967296"
)


def restart_with_kept_memory() -> None:
    """Executes this command anew with a malloc that keeps freed memory, as the same process.

    glibc takes settings from the environment alone, when a program starts. Does nothing on other
    systems than Linux, under a debugger, where GLIBC_TUNABLES has settings of malloc already, and
    in programs that only call this one, whose command line is another.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    arguments = sys.argv[1:]
    own = sys.orig_argv[len(sys.orig_argv) - len(arguments) :] == arguments
    if sys.platform != "linux" or "glibc.malloc." in given or sys.gettrace() or not own:
        return
    tunables = ":".join(filter(None, [given, _TUNABLES]))
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "GLIBC_TUNABLES": tunables})
