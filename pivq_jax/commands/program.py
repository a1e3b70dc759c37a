"""How a program with a model runs: its flags, their checks, the settings of JAX and exit codes."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import app, flags, logging

from pivq_jax.common.command_line import HELP, exit_code, parse_flags, refuse
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path
from pivq_jax.common.hub import check_published, find_pretrained
from pivq_jax.config.fields import all_fields
from pivq_jax.config.loader import define_config_flag

__all__ = ["Command", "Program"]

flags.disclaim_key_flags()  # flags defined here belong to the calling module

# What the help of a tool ends with.
ABOUT_MODELS = """
The model is that of --workdir, the folder of a run, or of --pretrained=NAME, a published one. NAME
is a model of the package (toon_faces), a directory, or the id of a model on the Hugging Face hub.
Results without a place of their own go to --workdir, with --pretrained by default the current
directory.

Settings are those of the run or of the published model, except for fields that are given on the
command line, as in --config.sample.count=500; `python -m pivq_jax.config.table` lists them.

Exit codes: 0 success; 2 invalid input, reported before any work; 1 failure (such as a full disk);
130 stopped by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal.
"""

_FIELDS = [field.name for field in all_fields()]
_PLACES = ("input", "output", "init_from")  # flags that may differ between processes


class Command(NamedTuple):
    """What a program does with a model."""

    work: Callable[..., None]  # called with a `task.Task` and by name the flags that it takes
    takes: tuple[str, ...] = ()  # flags that the program's other commands may not have, by name
    needs: tuple[str, ...] = ()  # those of them that must be given, as in --input=DIR
    trains: str = ""  # "model" or "prior", of a run: no published model can stand for it
    interrupted: str = ""  # what is said after Ctrl-C


class Program(NamedTuple):
    """A program with one or more commands, and flags that all programs with a model have.

    The command is the value of a flag --mode that it defines or, if it defines none, the word that
    follows the program's name. One that has a single command names it with an empty word.
    """

    name: str  # as it is typed
    module: ModuleType  # whose docstring is the help
    commands: Mapping[str, Command]
    define_flags: Callable[[], object]  # its own ones, from within the module
    about: str = ABOUT_MODELS  # what the help ends with

    def run(self) -> None:
        """Parses the flags, runs the command and ends the process with its exit code."""
        define_config_flag()
        flags.DEFINE_string("workdir", None, "Where the run lives; default runs/<config name>.")
        flags.DEFINE_string(
            "pretrained", None, "A published model, used instead of the model of a workdir."
        )
        flags.DEFINE_string(
            "distributed",
            os.environ.get("PIVQ_DISTRIBUTED", ""),
            "For a run of several processes: auto (TPU slice, Slurm, Open MPI) or"
            " ADDRESS:PORT,COUNT,INDEX. Default: $PIVQ_DISTRIBUTED.",
        )
        self.define_flags()
        flags.FLAGS.set_gnu_getopt()  # words may stand before flags
        app.run(self._main, flags_parser=self._parse)

    def _parse(self, arguments: list[str]) -> list[str]:
        """Parses flags; fields without --config change that of the run or the published model."""
        flag_names = [each.partition("=")[0] if each.startswith("-") else "" for each in arguments]
        names = [each.lstrip("-") for each in flag_names]
        fields = any(name.removeprefix("no").startswith("config.") for name in names)
        given = [name for name in ("pretrained", "workdir") if name in names]
        if fields and given and not {"config", *HELP} & {*names}:
            at = names.index(given[0])
            where = arguments[at].partition("=")[2] or "".join(arguments[at + 1 : at + 2])
            arguments = [*arguments]  # those of sys.argv stay as they are

            def add_config() -> int:
                published = given[0] == "pretrained"
                place = find_pretrained(where) if published else as_path(where)
                if published:
                    check_published(place)
                if published or (place / "config.json").exists():
                    # Its whole path, as its name may be that of an experiment, too.
                    place = place.absolute() if isinstance(place, Path) else place
                    arguments.insert(1, f"--config={place}/")
                return 0

            if code := exit_code(add_config):
                sys.exit(code)
        return parse_flags(_FIELDS, self.module, arguments, self.about)

    def _main(self, arguments: list[str]) -> int:
        """Runs the command that the arguments and flags name; returns its exit code."""
        word, others = self._split(arguments[1:])
        if (command := self.commands.get(word)) is None:
            return refuse(
                f"give what to do, {' or '.join(self.commands)}, as in {self.name}"
                f" {next(iter(self.commands))} --pretrained=toon_faces (--help explains)"
            )
        code = 1  # of an error that is not expected
        try:
            code = exit_code(partial(self._run, word, others), command.interrupted)
        finally:
            if flags.FLAGS.distributed:
                from pivq_jax.common.parallel import end_without_others

                end_without_others(code)
        return code

    def _split(self, words: list[str]) -> tuple[str, list[str]]:
        """Returns the name of the command, and the words beside it."""
        if "mode" in flags.FLAGS:
            return str(flags.FLAGS["mode"].value), words
        if "" in self.commands:
            return "", words
        return words[0] if words else "", words[1:]

    def _run(self, word: str, others: list[str]) -> int:
        self._check_flags(word, others)
        command = self.commands[word]
        own = {name: flags.FLAGS[name].value for name in command.takes}
        own = {name: value for name, value in own.items() if value is not None}
        import jax  # takes seconds, so invalid flags are reported before

        from pivq_jax.commands.task import make_task
        from pivq_jax.common.files import is_remote
        from pivq_jax.common.parallel import join_processes
        from pivq_jax.common.stopping import Interrupted, end_on_sigterm
        from pivq_jax.config.check import check_processes

        logging.set_verbosity(logging.WARNING)
        join_processes(flags.FLAGS.distributed)
        _keep_compiled_programs()
        given = flags.FLAGS.config
        task = make_task(
            None if given is None else given.to_dict(),
            flags.FLAGS.workdir or "",
            flags.FLAGS.pretrained,
            training=command.trains == "model",
        )
        check_processes(
            task.config,
            **({"mode": word} if word else {}),
            workdir=str(task.workdir if is_remote(task.workdir) else task.workdir.absolute()),
            starts_from_weights=bool(own.get("init_from")),
            **{name: value for name, value in own.items() if name not in _PLACES},
        )
        if not command.trains or jax.process_count() == 1:
            end_on_sigterm()
        try:
            command.work(task, **own)
        except Interrupted as interrupted:
            print(interrupted)
            return interrupted.exit_code
        except ModuleNotFoundError as error:  # before any work: what training imports
            remedy = "pip install '.[train,faces]' in a checkout of pivq_jax"
            return refuse(f"{error.name} is not installed: {remedy}")
        return 0

    def _check_flags(self, word: str, others: list[str]) -> None:
        """Checks that the command has what it needs, and nothing else is given."""
        command, values = self.commands[word], flags.FLAGS
        sign = "--mode=" if "mode" in values else ""
        if others:
            raise InputError(f"unexpected argument {others[0]!r}: flags look like --name=value")
        if values.pretrained is not None and command.trains == "model":
            names = ", ".join(name for name, other in self.commands.items() if not other.trains)
            raise InputError(
                f"--pretrained opens a trained model: give --mode, one of {names}, or train from"
                " its weights with --init_from"
            )
        if values.pretrained is not None and command.trains:
            raise InputError("--pretrained is a published model: give the --workdir of a run")
        for name in sorted({name for other in self.commands.values() for name in other.takes}):
            if values[name].present and name not in command.takes:
                users = [other for other in self.commands if name in self.commands[other].takes]
                raise InputError(
                    f"--{name} is for {sign}{' or '.join(users)}, not {word}: leave it out"
                )
        if not (values.config or values.pretrained or values.workdir):
            raise InputError(
                "--config is missing: give one such as --config=configs/toon_faces.py, or the"
                " --workdir of a run"
                if sign
                else "no model is given: give --pretrained, such as toon_faces, or the --workdir of"
                " a run"
            )
        if not all(values[need.strip("-").partition("=")[0]].value for need in command.needs):
            raise InputError(f"{sign}{word} needs {' and '.join(command.needs)}")


def _keep_compiled_programs() -> None:
    """Lets later commands reuse compiled programs from a cache."""
    import jax

    from pivq_jax.common.files import cache_folder, is_remote

    if jax.process_count() > 1 and jax.default_backend() == "gpu":
        # They share the tuning of their kernels: one that finds a program in the cache would leave
        # the others waiting for its part.
        jax.config.update("jax_enable_compilation_cache", False)
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("compilation")))
    elif is_remote(os.environ["JAX_COMPILATION_CACHE_DIR"]):  # XLA's own cache needs a local one
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
