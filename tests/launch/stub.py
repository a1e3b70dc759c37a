"""A `gcloud` that owns no machine: it records its calls and plays the slice in a directory.

$STUB holds `calls`, one a line as JSON; `answers`, lines of JSON [part of a call, output, exit
code] of which the first that fits is used up (the output "SIGTERM" stops the script that calls,
null is as if there were none, and with "lost" the call is done but its answer is not given);
`codes`, what training exits with, one a start; and worker0, worker1: their homes.

Other ends of training than a code: "lost", all of it dies without a word, as with its machine;
"orphan", only its shell does, and the program after three looks; "half", as "lost" on one worker
while the program waits for ever on the other.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STUB = Path(os.environ["STUB"])
WORKERS = [STUB / "worker0", STUB / "worker1"]
STATES = {"queued-resources": "ACTIVE", "tpu-vm": "READY"}

# Training, in a worker's home: what it was given, then the exit code whose turn it is.
PYTHON = """#!/bin/bash
echo "$@" >> ~/started
echo "this is worker $(basename ~)"
code=$(sed -n "$(wc -l < ~/started)p" "$STUB/codes")
looks() { grep -c "echo exit_code" "$STUB/calls"; }
case "$code" in
  lost) kill -9 $PPID ;;
  orphan) kill -9 $PPID; until (($(looks) >= 3)); do sleep 0.05; done ;;
  half) kill -9 $PPID; [[ ~ == *worker1 ]] || sleep 600 ;;
  *) exit "$code" ;;
esac
"""
UV = f"""#!/bin/bash
echo "$@" >> ~/installed
mkdir -p .venv/bin && cat > .venv/bin/python <<'END' && chmod +x .venv/bin/python
{PYTHON}END
"""


def answer_of(call: str) -> tuple[str | None, int] | None:
    """The scripted answer to a call, which is used up."""
    lines = (STUB / "answers").read_text().splitlines()
    for number, line in enumerate(lines):
        part, output, code = json.loads(line)
        if part in call:
            (STUB / "answers").write_text("\n".join(lines[:number] + lines[number + 1 :]))
            return output, code
    return None


def on_worker(home: Path, command: str) -> int:
    """What ssh does, on this machine; waits for what it leaves in the background."""
    environment = {**os.environ, "HOME": str(home), "STUB": str(STUB)}
    done = subprocess.run(["bash", "-c", command + "\nwait"], cwd=home, env=environment)
    return done.returncode


def create() -> int:
    if WORKERS[0].exists():
        print("ERROR: ALREADY_EXISTS", file=sys.stderr)
        return 1
    for home in WORKERS:
        (home / ".local" / "bin").mkdir(parents=True)
        (home / ".local" / "bin" / "uv").write_text(UV)
        (home / ".local" / "bin" / "uv").chmod(0o755)
    return 0


def main(arguments: list[str]) -> int:
    with (STUB / "calls").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    scripted = answer_of(shlex.join(arguments))
    if scripted is not None and scripted[0] == "lost":
        act(arguments)
        print("the connection was lost", file=sys.stderr)
        return scripted[1]
    if scripted is not None and scripted[0] is not None:
        if scripted[0] == "SIGTERM":
            os.kill(os.getppid(), signal.SIGTERM)
        print(scripted[0], file=sys.stderr if scripted[1] else sys.stdout)
        return scripted[1]
    return act(arguments)


def act(arguments: list[str]) -> int:
    """Does what is asked for."""
    assert arguments[:2] == ["compute", "tpus"], arguments
    group, verb, *rest = arguments[2:]
    options = dict(x[2:].split("=", 1) for x in rest if x.startswith("--") and "=" in x)
    which = {"all": WORKERS, "0": WORKERS[:1]}.get(options.get("worker", "all"), [])
    if verb == "create":
        return create()
    if verb in ("describe", "ssh", "delete") and not WORKERS[0].exists():
        print("ERROR: NOT_FOUND: Resource was not found", file=sys.stderr)
        return 1
    if verb == "describe":
        print(STATES[group])
        return 0
    if verb == "scp":
        for home in which:
            shutil.copy(rest[0], home / rest[1].split(":")[1])
        return 0
    if verb == "ssh":
        return max(on_worker(home, options["command"]) for home in which)
    assert verb == "delete", arguments
    for home in WORKERS:
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
