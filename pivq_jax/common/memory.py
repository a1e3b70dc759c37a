"""A malloc that suits training on a CPU."""

import contextlib
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
PROGRAMS = ("pivq_jax.main", "pivq_jax.prior.__main__")  # those that train
_RESTARTED = "PIVQ_JAX_RESTARTED"  # the process id, which stays the same


def restart_with_kept_memory() -> None:
    """Executes this command anew with a malloc that keeps freed memory, as the same process.

    glibc takes settings from the environment alone, when a program starts. Not with --flagfile,
    which may be a pipe, nor under a debugger or profiler.
    """
    restarted = os.environ.pop(_RESTARTED, "") == str(os.getpid())
    given = os.environ.get("GLIBC_TUNABLES", "")
    debugged = sys.gettrace() or "pydevd" in sys.modules
    if sys.platform != "linux" or restarted or "glibc.malloc." in given or debugged:
        return
    names = {argument.partition("=")[0].lstrip("-") for argument in sys.argv[1:]}
    if not _is_the_command() or "flagfile" in names or not sys.executable:
        return
    changes = {
        "GLIBC_TUNABLES": ":".join(filter(None, [given, TUNABLES])),
        _RESTARTED: str(os.getpid()),
    }
    with contextlib.suppress(OSError):  # then it is slower
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **changes})


def _is_the_command() -> bool:
    """Whether this process was started as a command that trains, such as `pivq_jax`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    named = os.path.basename(sys.argv[0]) == "pivq_jax" or (spec and spec.name in PROGRAMS)
    arguments = sys.argv[1:]
    start = len(sys.orig_argv) - len(arguments)
    # A profiler that runs it has a name of its own there, as in `memray run -m pivq_jax.main`.
    programs = [word for word in sys.orig_argv[1:start] if not word.startswith("-")]
    return bool(named) and len(programs) == 1 and sys.orig_argv[start:] == arguments
