"""Implementations of the values of `--mode`."""

from pathlib import Path

import jax

from pivq_jax.codec import folders
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json
from pivq_jax.common.parallel import say
from pivq_jax.common.pictures import save_png
from pivq_jax.config.check import check_workdir
from pivq_jax.config.fields import Config
from pivq_jax.data.images import load_image
from pivq_jax.data.tree import list_images
from pivq_jax.evaluation import stages
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.reconstruction import decode_batched, encode_split
from pivq_jax.evaluation.report import print_metrics, write_report
from pivq_jax.evaluation.session import Session, Settings
from pivq_jax.inference import TrainedModel, load
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.loop import train
from pivq_jax.training.stopping import end_on_sigterm


def run(mode: str, config: Config, workdir: Path) -> None:
    """Runs a mode that needs the data; `train` is followed by the others.

    Args:
        mode: 'train', 'evaluate', 'sample' or 'interpolate'.
        config: config of the run, checked by `check_config`.
        workdir: directory of the run, local or remote.

    Raises:
        InputError: if there is no data, no trained model, or no file of weights that the evaluation
            needs, or if the workdir belongs to another config.
        Interrupted: see `train`.
        FloatingPointError: see `train`.
    """
    if mode == "train":
        settings = config.evaluate
        if (settings.features, settings.features_path) != ("vgg", ""):
            # Report missing weights before hours of training.
            feature_extractor(settings.features, settings.features_path)
        train(config, workdir)
    end_on_sigterm()
    session = _open(config, workdir)
    if mode in ("evaluate", "train"):
        _evaluate(session)
    if mode in ("sample", "train"):
        stages.sample(session, config.sample.count, config.sample.fraction)
    if mode in ("interpolate", "train"):
        stages.interpolate(session, config.sample.interpolations, config.sample.steps)


def _open(config: Config, workdir: Path) -> Session:
    """Opens the trained model of a workdir with the data and settings of a config."""
    check_workdir(config, workdir)
    loss = config.loss
    lpips_path = loss.perceptual_weights if loss.perceptual_network == "alex" else ""
    settings = Settings(**config.evaluate, lpips_path=lpips_path)
    return Session(load(workdir), dataset_from_config(config), settings, workdir)


def _evaluate(session: Session) -> None:
    """Writes `metrics.json` and `report/` for the test split."""
    model, workdir = session.model, session.workdir
    say(f"evaluating step {model.step} on {len(session.dataset.test):,} test images")
    metrics = write_report(session)
    if jax.process_index() == 0:
        print_metrics(metrics)
    say(f"wrote {workdir / 'metrics.json'} and {workdir / 'report' / 'index.html'}")


def reconstruct(config: Config, workdir: Path, source: Path, target: Path) -> None:
    """Reconstructs all images of a folder to PNG files, and writes their codes to `codes.json`.

    Files that cannot be read are reported and skipped.

    Args:
        config: config of the run, for checks, image size and batch size.
        workdir: directory of the run, local or remote.
        source: local folder of images of any size.
        target: output folder, local or remote.

    Raises:
        InputError: if there is no such folder, no readable image in it, or no trained model.
    """
    end_on_sigterm()
    files = list_images(source)
    check_workdir(config, workdir, writes=False)
    model, writes = load(workdir), jax.process_index() == 0
    batch_size, codes = config.evaluate.batch_size, {}
    for start in range(0, len(files), batch_size):
        readable = {}
        for file in files[start : start + batch_size]:
            try:
                readable[Path(file)] = load_image(source / file, config.data.image_size)
            except InputError as error:
                say(f"skipped: {error}")
        if not readable:
            continue
        images = [{"image": image} for image in readable.values()]
        found = encode_split(model, images, batch_size)
        decoded = decode_batched(model, found, batch_size)
        for name, image, row in zip(readable, decoded, found.tolist(), strict=True):
            if writes:
                save_png(target / name.parent / f"{name.name}.png", image)
            codes[name.as_posix()] = row
    if not codes:
        raise InputError(f"no readable image in {source}: see the lines above")
    if writes:
        write_json(target / "codes.json", codes)
    say(f"{len(codes):,} images and codes.json in {target}")


def compress(config: Config | None, workdir: Path, source: Path, target: Path, code: str) -> None:
    """Writes the codes of all images of a folder to a file; see `codec.folders.compress`.

    Args:
        config: config of the run, for checks and batch size; None for that of the workdir.
        workdir: directory of the run, local or remote.
        source: local folder of images of any size.
        target: the file, local or remote.
        code: `fixed` or `short`.

    Raises:
        InputError: as in `codec.folders.compress`, or if there is no trained model.
    """
    model, batch_size = _open_model(config, workdir)
    folders.compress(model, source, target, batch_size, code)


def decompress(config: Config | None, workdir: Path, source: Path, target: Path) -> None:
    """Decodes a file of codes to a folder of PNG files; see `codec.folders.decompress`.

    Args:
        config: config of the run, for checks and batch size; None for that of the workdir.
        workdir: directory of the run, local or remote.
        source: the file, local or remote.
        target: local folder, new or empty.

    Raises:
        InputError: as in `codec.folders.decompress`, or if there is no trained model.
    """
    model, batch_size = _open_model(config, workdir)
    folders.decompress(model, source, target, batch_size)


def explore(config: Config | None, workdir: Path, address: str, port: int) -> None:
    """Serves the explorer, a page to take images apart, until Ctrl-C.

    Args:
        config: config of the run, checked by `check_config`; by default the one in the workdir.
        workdir: directory of the run, local or remote.
        address: where to listen, such as '127.0.0.1'.
        port: the port; 0 for any free one.

    Raises:
        InputError: if a package is missing, the port is in use, there is no data or no trained
            model, or the workdir belongs to another config.
    """
    try:
        from pivq_jax.explore.server import listen, serve, url
    except ModuleNotFoundError as error:
        raise InputError(
            f"--mode=explore needs {error.name}: pip install 'pivq_jax[explore]'"
        ) from error
    from pivq_jax.explore.engine import Engine

    if jax.process_count() > 1:
        raise InputError("--mode=explore runs in one process: leave --distributed out")
    with listen(address, port) as listener:
        try:
            model, _ = _open_model(config, workdir)
            engine = Engine(model, dataset_from_config(config or model.config))
            print(f"explore {workdir} at {url(listener, address)} (Ctrl-C ends)", flush=True)
            serve(engine, listener, address)
        except KeyboardInterrupt:
            print("\nstopped")


def _open_model(config: Config | None, workdir: Path) -> tuple[TrainedModel, int]:
    """Opens the trained model of a workdir, which a config must fit if there is one."""
    end_on_sigterm()
    if config:
        check_workdir(config, workdir, writes=False)
    model = load(workdir)
    return model, (config or model.config).evaluate.batch_size
