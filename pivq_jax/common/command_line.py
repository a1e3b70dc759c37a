"""Command-line flags of absl, with the module docstring as `--help` and one-line errors."""

import re
import sys
from types import ModuleType
from typing import Any

from absl import flags


def parse_flags(
    config: flags.FlagHolder[Any], program: ModuleType, arguments: list[str]
) -> list[str]:
    """Parses flags; on invalid flags, prints an error and exits with status 2.

    Args:
        config: the config's flag.
        program: the module whose docstring and flags are the help.
        arguments: `sys.argv`.

    Returns:
        The remaining arguments.
    """
    if any(argument in ("--help", "-h", "--helpshort", "--helpfull") for argument in arguments):
        print(program.__doc__)
        print(flags.FLAGS.module_help(program) or "")
        sys.exit(0)
    try:
        return flags.FLAGS(arguments)
    except (AttributeError, KeyError) as error:  # raised by config_flags for unknown fields
        quoted = re.search(r"\w+", str(error.args[0]))  # the name, possibly in escaped quotes
        field = quoted.group() if quoted else str(error)
        names = [argument.split("=")[0] for argument in arguments]
        named = next((name for name in names if field in name.split(".")), field)
        message = (
            f"the config has no field {named}: `python -m pivq_jax.config.table` lists the fields"
        )
    except (
        flags.Error,
        OSError,
        ImportError,
        SyntaxError,
        ValueError,
        TypeError,
    ) as error:  # the message may contain a traceback
        message = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    sys.exit(refuse(message))


def refuse(message: str) -> int:
    """Prints an error message to stderr.

    Args:
        message: one line.

    Returns:
        2, the exit status for invalid input.
    """
    print(f"error: {message}", file=sys.stderr)
    return 2
