"""Starts commands by fork from a process that has imported the libraries already.

Importing them takes most of a short command's time. Reads requests as JSON lines from stdin:
{"arguments": [...], "directory": DIR, "environment": {...}, "stdout": PATH, "stderr": PATH} starts
`python -m pivq_jax.main` with these arguments ("module": NAME instead runs another module, and
"code": CODE a script) and answers its process id; {"wait": PID} answers its exit code, negative for
a signal.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import traceback


def run(request: dict) -> int:
    """Be the command: its streams, directory, environment and exit code."""
    for number, stream in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(request[stream], flags), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    try:
        if "code" in request:
            exec(compile(request["code"], "<test>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = ["", *request["arguments"]]
            sys.orig_argv = [sys.executable, "-m", request["module"], *request["arguments"]]
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_request:
        value = exit_request.code
        code = value if isinstance(value, int) else 0 if value is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # os._exit does not: among them JAX's, which waits for other processes
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in ("ott.tools.k_means", "tensorboardX", "pivq_jax.data.image_folder"):
        importlib.import_module(name)
    for name in ("modes", "training.loop", "prior.training"):
        importlib.import_module(f"pivq_jax.{name}")
    # As in `conftest.py`; what is frozen stays shared with the commands, too.
    gc.set_threshold(100_000, 20, 100)
    gc.collect()
    gc.freeze()

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(run(request))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
