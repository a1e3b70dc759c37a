"""Compares files of codes with JPEG, WebP, AVIF and JPEG XL on the test images of a trained run.

    pip install pillow-jxl-plugin   # for JPEG XL, which is left out without
    python -m benchmarks.compression --workdir=runs/toon_faces [--images=1000]
    python -m benchmarks.compression --pretrained=toon_faces --only-ours

Each format is measured at three settings: the smallest file at full size; the best with about as
many bytes as our codes take, for which the image is made smaller before and larger after; and the
lowest quality that has our PSNR. The searches for the last two use the first 32 images.

  file       bytes of a file with one image; for ours with its name, mean over the first 32
  payload    without headers: for ours the codes; for the others the file less the file of a
             uniformly grey image with the same setting
  encode, decode   milliseconds an image, ours in batches and the others one by one, in memory

A second table is of our files with more and more of the images: bytes an image of the whole file
and of the codes alone, and seconds of processor time to write and read the codes. A third one is of
files in the fixed code with random sets of five sizes. Writes all to --output, as compression.md.

The comparison is not fair: our model has learned this kind of image, reproduces no other, and is
part of the program that decodes (its size is printed).
"""

import io
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from benchmarks.common import add_model, lpips_of, markdown, open_model, parser_for
from pivq_jax.codec.container import Contents, pack, parse
from pivq_jax.codec.files import batches_of, contents_of
from pivq_jax.common.files import write_atomically
from pivq_jax.common.psnr import psnr
from pivq_jax.inference import TrainedModel, decode_batched, encode_split, images_of
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.sampling import CodeSpace, capacity
from pivq_jax.training.build import dataset_from_config

SEARCHED = 32  # images for the choice of settings
QUALITIES = (0, 10, 25, 50, 75)  # tried on smaller images
# N, K and random sets
SIZES = (
    (16, 512, 10_000),
    (128, 2_048, 1_000),
    (256, 4_096, 1_000),
    (1_024, 32_768, 10),
    (4_096, 131_072, 3),
)
# Options of Pillow's encoders: for the smallest files, and further ones for high quality.
FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "JPEG": ({"optimize": True}, {"subsampling": 0}),
    "WEBP": ({"method": 6}, {"use_sharp_yuv": True}),
    "AVIF": ({}, {"subsampling": "4:4:4"}),
    "JXL": ({}, {}),
}


class Row(NamedTuple):
    """What was measured."""

    label: str  # format and setting
    file: float | None  # mean bytes of a file with one image; None if that has another code
    payload: float  # mean bytes without headers
    encode_ms: float  # an image
    decode_ms: float  # an image
    images: np.ndarray  # uint8 [M, H, W, 3], decoded


class Setting(NamedTuple):
    """A format with a quality from 0 to 100, and the side in pixels at which images are encoded."""

    form: str
    quality: int
    side: int
    fine: bool = False

    def encode(self, image: np.ndarray) -> bytes:
        """Returns the file of an image uint8 [H, W, 3]."""
        picture, file = Image.fromarray(image), io.BytesIO()
        if self.side != picture.width:
            picture = picture.resize((self.side, self.side), Image.Resampling.LANCZOS)
        small, further = FORMATS[self.form]
        picture.save(
            file, self.form, quality=self.quality, **small, **(further if self.fine else {})
        )
        return file.getvalue()

    def decode(self, file: bytes, size: int) -> np.ndarray:
        """Returns the image in a file, uint8 [size, size, 3]."""
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        if picture.width != size:
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        return np.array(picture)

    def measure(self, images: np.ndarray) -> Row:
        """Encodes and decodes images, uint8 [M, H, W, 3]."""
        started = time.perf_counter()
        files = [self.encode(image) for image in images]
        between = time.perf_counter()
        decoded = np.stack([self.decode(file, images.shape[1]) for file in files])
        ended = time.perf_counter()
        head = len(self.encode(np.full_like(images[0], 128)))
        total = float(np.mean([len(file) for file in files]))
        first, second = (1e3 * t / len(images) for t in (between - started, ended - between))
        label = f"{self.form} {self.quality} at {self.side} x {self.side}"
        return Row(label, total, max(total - head, 0.0), first, second, decoded)


def mean_psnr(row: Row, images: np.ndarray) -> float:
    """Mean PSNR of the images of a row, in dB."""
    return float(psnr(row.images, images, 255.0).mean())


def about(form: str, images: np.ndarray, budget: float) -> Setting:
    """The best PSNR within a budget of bytes of payload, or else the smallest payload."""
    sides = [images.shape[1] >> i for i in range(16) if images.shape[1] >> i >= 4]
    tried = itertools.starmap(Setting, itertools.product([form], QUALITIES, sides))
    rows = {setting: setting.measure(images) for setting in tried}
    within = [setting for setting, row in rows.items() if row.payload <= budget]
    if within:
        return max(within, key=lambda setting: mean_psnr(rows[setting], images))
    return min(rows, key=lambda setting: rows[setting].payload)


def as_good(form: str, images: np.ndarray, wanted: float) -> Setting:
    """The lowest quality at full size with this PSNR, or else the highest quality."""
    low, high = 0, 100
    while low < high:
        middle = (low + high) // 2
        row = Setting(form, middle, images.shape[1], fine=True).measure(images)
        low, high = (low, middle) if mean_psnr(row, images) >= wanted else (middle + 1, high)
    return Setting(form, low, images.shape[1], fine=True)


def ours(model: TrainedModel, images: np.ndarray, code: str) -> tuple[Row, str]:
    """Measures our codec; also returns a line about a file of all images."""
    batch_size = model.config.evaluate.batch_size
    source = [{"image": image} for image in images]
    names = names_of(len(images))
    for count in (batch_size, len(images)):  # the first is for compilation
        started = time.perf_counter()
        codes = encode_split(model, source[:count], batch_size)
        contents = contents_of(model, codes, names[:count], code)
        content = pack(contents)
        between = time.perf_counter()
        (found,) = batches_of(contents, model, count, "file")
        decoded = decode_batched(model, found, batch_size)
        ended = time.perf_counter()
    code = contents.code  # the shorter of those allowed
    files = [pack(contents_of(model, row[None], names[:1], code)) for row in codes[:SEARCHED]]
    alone = float(np.mean([len(file) for file in files]))
    payload = len(contents.data) / len(images)
    encode_ms, decode_ms = (1e3 * t / len(images) for t in (between - started, ended - between))
    bits = capacity(model.space, codes)
    line = (
        f"One file of all {len(images):,} images ({code} code): {len(content) / len(images):.2f}"
        f" bytes an image; {payload:.2f} of them codes, beside `ceiling_bits` of"
        f" {bits['ceiling_bits']:.1f} and `marginal_bits` of {bits['marginal_bits']:.1f}."
    )
    return Row(f"pivq, {code}", alone, payload, encode_ms, decode_ms, decoded), line


def names_of(count: int) -> list[str]:
    """The names of images."""
    return [f"{i:06d}.png" for i in range(count)]


def by_count(model: TrainedModel, codes: np.ndarray, kinds: Sequence[str]) -> str:
    """Formats a table of files with the first 1, 10, 100, ... images, as Markdown."""
    rows = []
    counts = [10**i for i in range(len(str(len(codes))))]
    for count, code in itertools.product(counts, kinds):
        started = time.process_time()
        contents = contents_of(model, codes[:count], names_of(count), code)
        if contents.code != code:  # it is longer
            continue
        file = pack(contents)
        between = time.process_time()
        (found,) = batches_of(contents, model, count, "file")
        ended = time.process_time()
        assert np.array_equal(found, codes[:count])
        values = len(file) / count, len(contents.data) / count, between - started, ended - between
        rows.append([f"{count:,}", code, *(f"{value:.2f}" for value in values)])
    return markdown(["images", "code", "file", "codes", "write s", "read s"], rows, texts=2)


def by_size() -> str:
    """Formats a table of files with random sets in the fixed code, as Markdown."""
    rows = []
    rng = np.random.default_rng(0)
    for num_codes, size, count in SIZES:
        codes = np.sort(rng.random((count, size)).argsort(axis=1)[:, :num_codes], axis=1)
        space = CodeSpace(num_codes, size)
        head = ("matching", "fixed", bytes(8), num_codes, size, 64, b"", tuple(names_of(count)))
        started = time.process_time()
        file = pack(Contents(*head, space.rank(codes).tobytes()))
        between = time.process_time()
        ranks = np.frombuffer(parse(file, "file").data, np.uint8).reshape(count, -1)
        found = space.unrank(ranks)
        ended = time.process_time()
        assert np.array_equal(found, codes)
        sizes = [f"{value:,}" for value in (num_codes, size, count, ranks.shape[1])]
        rows.append([*sizes, f"{between - started:.2f}", f"{ended - between:.2f}"])
    return markdown(["N", "K", "images", "codes", "write s", "read s"], rows, texts=0)


def installed() -> list[str]:
    """Returns the formats that can be written here, and says which cannot."""
    found = ["JPEG", "WEBP"] + (["AVIF"] if features.check("avif") else [])
    try:
        import pillow_jxl  # noqa: F401

        found.append("JXL")
    except ImportError:
        pass
    if missing := FORMATS.keys() - found:
        print(f"left out, as Pillow cannot write them here: {', '.join(sorted(missing))}")
    return found


def table(rows: Sequence[Row], images: np.ndarray, batch_size: int) -> str:
    """Formats the rows as Markdown."""
    fits = images.shape[1] >= BACKBONES["alex"].minimum_size
    lines = []
    for row in rows:
        apart = f"{lpips_of(row.images, images, batch_size):.4f}" if fits else ""
        cells = [row.label, f"{row.file:.1f}" if row.file else "", f"{row.payload:.1f}"]
        cells += [f"{mean_psnr(row, images):.2f}", apart]
        lines.append([*cells, f"{row.encode_ms:.2f}", f"{row.decode_ms:.2f}"])
    head = ["", "file", "payload", "PSNR dB", "LPIPS", "encode ms", "decode ms"]
    return markdown(head, lines)


def main() -> None:
    """Measures all formats and prints the tables."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--images", type=int, default=1_000, help="number of test images")
    parser.add_argument("--only-ours", action="store_true", help="measure no other format")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()

    formats = [] if options.only_ours else installed()
    model = open_model(options)
    batch_size = model.config.evaluate.batch_size
    test = dataset_from_config(model.config).test
    images = images_of(test, range(min(options.images, len(test))))
    kinds = ["fixed", "prior"] if model.prior else ["fixed"]
    measured = (ours(model, images, code) for code in kinds)
    by_label = {row.label: (row, note) for row, note in measured}  # two may have one code
    rows, notes = map(list, zip(*by_label.values(), strict=True))
    codes = encode_split(model, [{"image": image} for image in images], batch_size)
    notes += [by_count(model, codes, kinds), by_size()]
    few, budget, wanted = images[:SEARCHED], rows[0].payload, mean_psnr(rows[0], images)
    settings = [about(form, few, budget) for form in formats]
    settings += [Setting(form, 0, images.shape[1]) for form in formats]
    settings += [as_good(form, few, wanted) for form in formats]
    rows += [setting.measure(images) for setting in settings]
    notes.append(
        f"Means over {len(images):,} test images. Our model, which decodes, has"
        f" {model.num_parameters:,} parameters, {4 * model.num_parameters / 1e6:.1f} MB."
    )
    text = "\n\n".join([table(rows, images, batch_size), *notes]) + "\n"
    print(text)
    write_atomically(options.output / "compression.md", text.encode())


if __name__ == "__main__":
    main()
