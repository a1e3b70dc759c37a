"""python -m pivq_jax.explore --pretrained=toon_faces [--address=127.0.0.1] [--port=8765]

Serves a page to explore and exchange the codes of images, until Ctrl-C.

    python -m pivq_jax.explore --pretrained=toon_faces
    python -m pivq_jax.explore --workdir=runs/toon_faces --port=0
"""

import sys
from functools import partial

import jax
from absl import flags

from pivq_jax.commands.program import Command, Program
from pivq_jax.commands.task import Task, can_hold_out, hold_out, open_data, open_model
from pivq_jax.common.errors import InputError


def explore(task: Task, address: str, port: int) -> None:
    """Serves the explorer, a page to exchange the codes of images, until Ctrl-C."""
    try:
        from pivq_jax.explore.server import listen, make_server, url
    except ModuleNotFoundError as error:
        raise InputError(
            f"the explorer needs {error.name}: pip install '.[explore]' in a checkout of pivq_jax"
        ) from error
    from pivq_jax.explore.engine import Engine

    if jax.process_count() > 1:
        raise InputError("the explorer runs in one process: leave --distributed out")
    with listen(address, port) as listener:
        try:
            model = open_model(task, writes=False)
            if can_hold_out(model):  # at once; test images follow, which may have to be drawn
                later = partial(open_data, task, model)
                engine = Engine(*hold_out(model), "decoded training image", later)
            else:
                engine = Engine(model, open_data(task, model))
            name = task.workdir if task.published is None else model.config.name
            print(f"explore {name} at {url(listener, address)} (Ctrl-C ends)", flush=True)
            make_server(engine, address).run(sockets=[listener])
        except KeyboardInterrupt:
            print("\nstopped")


def _define_flags() -> None:
    flags.DEFINE_string(
        "address", "127.0.0.1", "Where the page is served; 0.0.0.0 also for other machines."
    )
    flags.DEFINE_integer(
        "port", 8765, "Its port; 0 for any free one.", lower_bound=0, upper_bound=65_535
    )


def run() -> None:
    """Runs the command."""
    commands = {"": Command(explore, takes=("address", "port"))}
    name = "python -m pivq_jax.explore"
    Program(name, sys.modules[__name__], commands, _define_flags).run()


if __name__ == "__main__":
    run()
