"""Command lines with the module's docstring as `--help`, and one-line errors for invalid input.

Commands with a config use absl (`parse_flags`), where every field of the config is a flag; others
use argparse (`CommandParser`), which needs neither absl nor a config.
"""

import argparse
import difflib
import errno
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from pivq_jax.common.errors import InputError, brief, meant, printable
from pivq_jax.common.output import ignore_output_errors, print_and_exit
from pivq_jax.common.storage import causes, of_client

HELP = ("help", "h", "helpshort", "helpfull")  # flags that print the help


# What the system says of a path that cannot be used as it was given, and what helps.
_OF_PATHS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "allow it (chmod, chown), or give another path"),
    errno.EROFS: "give a path that can be written",
    errno.ELOOP: "remove that link, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "part of this path is a file: give another path",
    errno.EISDIR: "this is a folder: give another path",
}


class CommandParser(argparse.ArgumentParser):
    """A parser with the module's docstring as help, and exit status 2 for invalid arguments."""

    def __init__(self, **options: Any) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=form, allow_abbrev=False, **options)

    def print_help(self, file: Any = None) -> NoReturn:
        """Prints the help and exits."""
        print_and_exit(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Exits with status 2 and a one-line error."""
        sys.exit(refuse(f"{message} (--help explains)"))


def parse_flags(
    fields: Sequence[str], program: ModuleType, arguments: list[str], about: str = ""
) -> list[str]:
    """Parses flags, among them the dotted `fields` of a config, and returns the other arguments.

    The help is the docstring of the program, what else there is to say `about` it, and its flags.
    """
    from absl import flags

    if any(argument.lstrip("-") in HELP and argument[:1] == "-" for argument in arguments):
        print_and_exit(f"{program.__doc__}{about}\n{flags.FLAGS.module_help(program) or ''}")
    try:
        return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        message = f"{error}{_meant(error.flagname, fields)}"
        if error.flagname.startswith("config."):
            message = (
                f"--{error.flagname} needs --config: a name, a file or the workdir of a run, or the"
                " directory of a published model"
            )
    except flags.IllegalFlagValueError as error:
        message = _illegal_value(str(error))
    except Exception as error:  # of any type, as a config is a program; maybe with a traceback
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = lines[-1] if lines else type(error).__name__
        if isinstance(error, AttributeError | KeyError):  # of config_flags, or of the config itself
            message = _unknown_field(fields, arguments) or f"{type(error).__name__}: {message}"
    sys.exit(refuse(message))


# What absl says of a value of the wrong type, and the same in plain words.
_OF_TYPES = {
    "invalid literal for int()": "must be a whole number",
    "could not convert string to float": "must be a number",
    "Non-boolean argument": "must be true or false",
}


def _illegal_value(message: str) -> str:
    """Says in plain words what absl has against a flag's value."""
    said = re.fullmatch(r"flag (--[^=]+=(.*?)): (.*)", message, re.DOTALL)
    if said is None:
        return message
    flag, value, reason = said.groups()
    if choices := re.fullmatch(r"value should be one of <(.*)>", reason):
        known = choices[1].split("|")
        return f"{flag} is unknown{meant(value, known) or ':'} use one of {', '.join(known)}"
    plain = next((text for part, text in _OF_TYPES.items() if part in reason), "")
    return f"{flag} {plain}" if plain else f"{flag}: {reason}"


def _unknown_field(fields: Sequence[str], arguments: list[str]) -> str:
    """Names the first flag of a field that the config does not have, and what was meant."""
    for flag in (argument.split("=")[0] for argument in arguments):
        name = flag.lstrip("-").removeprefix("no").removeprefix("config.")
        if flag.startswith("-") and "config." in flag and name not in fields:
            listed = "(`python -m pivq_jax.config.table` lists the fields)"
            return f"the config has no field {flag} {listed}{_meant(name, fields)}"
    return ""


def _meant(name: str, fields: Sequence[str]) -> str:
    """Asks for the fields whose name, with or without the section, is most like this one."""
    tails = [field.rpartition(".")[2] for field in fields]
    close = difflib.get_close_matches(name, [*fields, *tails], n=1)
    meant = [f"--config.{x}" for x in fields for y in close if f".{x}".endswith(f".{y}")]
    return f": did you mean {' or '.join(meant)}?" if meant else ""


def exit_code(command: Callable[[], int], interrupted: str = "", failed: str = "") -> int:
    """Runs a command and returns its exit code; expected errors are reported in one line.

    `interrupted` is appended to what is said after Ctrl-C, and `failed` to the errors of files. A
    path that cannot be used as it was given is invalid input.
    """
    ignore_output_errors()
    try:
        return command()
    except InputError as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted{interrupted}", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:  # NumPy's or Python's; a device's
        if str(error).startswith("Symlink loop"):  # of Python 3.12 and before
            return refuse(f"{error}: {_OF_PATHS[errno.ELOOP]}")
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(
            f"error: there is too little memory ({brief(error)}): set model.remat, raise"
            " train.accumulation (of a run that has begun, in a new workdir) or lower"
            " evaluate.batch_size; or give smaller images, or fewer at once",
            file=sys.stderr,
        )
    except OSError as error:
        if remedy := _OF_PATHS.get(error.errno or 0):
            reason = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
            return refuse(f"{_shortened(reason)}: {remedy}")
        print(f"error: {error}{failed}", file=sys.stderr)
    except Exception as error:
        if not any(map(of_client, causes(error))):
            raise
        print(
            f"error: the storage refused ({brief(error)}): check the network, and your login to it",
            file=sys.stderr,
        )
    return 1


def _shortened(text: str) -> str:
    """A text with a path, of which names that are too long for a file are cut."""
    parts = (
        part if len(part) <= 160 else f"{part[:40]}...{part[-40:]}" for part in text.split("/")
    )
    return printable("/".join(parts))


def resumable_exit_code(command: Callable[[], int]) -> int:
    """Returns the exit code of a command that continues when it is run again."""
    remedy = "; the same command continues where this stopped"
    return exit_code(command, interrupted=remedy, failed=remedy)


def refuse(message: str) -> int:
    """Prints an error message to stderr; returns 2, the exit status for invalid input."""
    print(f"error: {message}", file=sys.stderr)
    return 2
