"""absl's flags, but `--help` teaches and every mistake is one line with what to do."""

import re
import sys
from typing import Any

from absl import flags


def parse_flags(config: Any, arguments: list[str]) -> list[str]:
    """What is left of the arguments once flags are parsed; ends the program with 2 on a mistake.

    Args:
      config: what `config_flags.DEFINE_config_file` returned.
      arguments: `sys.argv`.
    """
    if any(argument in ("--help", "-h", "--helpshort", "--helpfull") for argument in arguments):
        program = sys.modules["__main__"]
        print(program.__doc__)
        print(flags.FLAGS.module_help(program) or "")
        sys.exit(0)
    try:
        rest = flags.FLAGS(arguments)
        if config.value is not None:
            config.value.lock()  # a config that did not load raises here
        return rest
    except (AttributeError, KeyError) as error:  # config_flags raises these on unknown fields
        quoted = re.search(r"\w+", str(error.args[0]))  # the name, perhaps in escaped quotes
        field = quoted.group() if quoted else str(error)
        names = [argument.split("=")[0] for argument in arguments]
        named = next((name for name in names if field in name.split(".")), field)
        message = f"the config has no field {named}: configs/common.py lists the fields"
    except (
        flags.Error,
        OSError,
        ImportError,
        SyntaxError,
        ValueError,
        TypeError,
    ) as error:  # may quote a whole traceback
        message = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    sys.exit(refuse(message))


def refuse(message: str) -> int:
    """Tell what is wrong; the exit code of wrong input."""
    print(f"error: {message}", file=sys.stderr)
    return 2
