"""A `gcloud` that owns no machine: it records its calls and plays the slice in a directory.

$STUB holds `calls`, one a line as JSON; `answers`, lines of JSON [part of a call, output, exit
code] of which the first that fits is used up; `codes`, what training exits with, one a start
("lost" ends it without a word, as the end of a machine does); and worker0, worker1: their homes.
"""

import json
import os
import shlex
import shutil
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
if [[ "$code" == lost ]]; then kill -9 $PPID; fi
exit "$code"
"""
UV = f"""#!/bin/bash
echo "$@" >> ~/installed
mkdir -p .venv/bin && cat > .venv/bin/python <<'END' && chmod +x .venv/bin/python
{PYTHON}END
"""


def answer_of(call: str) -> tuple[str, int] | None:
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
    for home in WORKERS:
        shutil.rmtree(home, ignore_errors=True)
        (home / ".local" / "bin").mkdir(parents=True)
        (home / ".local" / "bin" / "uv").write_text(UV)
        (home / ".local" / "bin" / "uv").chmod(0o755)
    return 0


def main(arguments: list[str]) -> int:
    with (STUB / "calls").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    scripted = answer_of(shlex.join(arguments))
    if scripted is not None:
        print(scripted[0], end="\n" if scripted[0] else "")
        return scripted[1]
    assert arguments[:2] == ["compute", "tpus"], arguments
    group, verb, *rest = arguments[2:]
    options = dict(x[2:].split("=", 1) for x in rest if x.startswith("--") and "=" in x)
    which = {"all": WORKERS, "0": WORKERS[:1]}.get(options.get("worker", "all"), [])
    if verb == "create":
        return create()
    if verb == "describe" and options["format"] == "value(name)" and not WORKERS[0].exists():
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
