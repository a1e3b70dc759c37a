"""Computes what the page asks for, with a trained model and without web code.

It takes and returns arrays of fixed shapes, so that nothing compiles twice. Two threads must not
use it at once.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax import sampling
from pivq_jax.codec import from_bytes, to_bytes
from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar
from pivq_jax.common.terms import TERMS
from pivq_jax.data import Dataset, images_to_float, images_to_uint8
from pivq_jax.explore.factors import (
    Probe,
    edit_in_order,
    find_meanings,
    fit_probe,
    read_values,
    words,
)
from pivq_jax.explore.pool import decoded_pool, encode_pool, nearest, shrink
from pivq_jax.explore.uploads import MAX_BYTES
from pivq_jax.inference import Decoded, TrainedModel
from pivq_jax.sampling import Labels

# Images decoded at once. More would not be much faster, and a large model would be busy for long.
BATCH = 4
DECODED = 32  # training images that are decoded between two answers
TEMPERATURE = 0.8  # of the prior; it gives the best samples (docs/prior.md)
PARENTS = 500  # pairs that new faces are of, where the config wants parents that fit
# The page opens on the pair of the first images of which most exchanges of a code are seen: they
# change this share of the pixels by more than `SEEN` grey levels.
OPENING, OPENING_SETS = 6, 160  # images, and sets decoded to find the pair
SEEN, SHARE = 30, 0.05
MAX_EXAMPLES = 48  # most images of `Engine.examples` at once
MAX_FILE_IMAGES = 10_000  # of a file of codes, of which the first is shown


class Picture(NamedTuple):
    """An image with its codes."""

    name: str  # such as 'test image 12'
    codes: np.ndarray  # int32 [N], canonical
    image: np.ndarray  # uint8 [S, S, 3]


class Pairs(NamedTuple):
    """Two paired code sets, see `sampling.pair_codes`."""

    a: np.ndarray  # int32 [N], codes of A in canonical order
    b: np.ndarray  # int32 [N], the partner of each in B
    cost: np.ndarray  # f32 [N], squared distance of each pair; with places, of all pairs of one


class NewFace(NamedTuple):
    """Two recombined training images."""

    a: Picture
    b: Picture
    pairs: Pairs
    codes: np.ndarray  # int32 [N], the new set: entry n is `pairs.a[n]` or `pairs.b[n]`


class Nearest(NamedTuple):
    """The training image that looks most like another image."""

    picture: Picture
    difference: float  # mean absolute difference of pixels in grey levels
    searched: int  # number of training images


class Engine:
    """A trained model with its data.

    `labelled`, the model with labelled images, is None without labels, and if codes are ordered.
    """

    def __init__(
        self,
        model: TrainedModel,
        dataset: Dataset,
        example_name: str = "test image",
        later: Callable[[], Dataset] | None = None,
    ) -> None:
        """Gets ready to answer, compiled and all; with `later`, as little as possible is done.

        Then `dataset` is that of the model's parents as they decode; whoever makes the engine does
        the work that is `left`, and gives `take` the data that `later` opens, beside the answers.
        """
        self.model, self.dataset, self._example_name = model, dataset, example_name
        self.later = later
        self.size = model.config.data.image_size
        self.num_codes = model.space.num_codes
        self.num_examples = len(dataset.test)
        self._codebook = model.codebook
        self.labelled: TrainedModel | None = None
        self.probe: Probe | None = None  # None without labels, and until it is fitted
        self._lift: jax.Array | None = None
        if later:
            self.pool = decoded_pool(model)
        else:
            self.pool = encode_pool(model, dataset.train, tuple(dataset.factors))
        # Pictures of so many training images, the first ones, are there to be searched.
        self._searched = 0 if later else len(self.pool.codes)
        if not model.space.ordered:
            self._count()
        self.left = self._steps()  # work with what it is
        if not later:
            for _, work in progress_bar(self.left, desc="compiling", unit="program"):
                work()
            self.left = []

    def _count(self) -> None:
        """Counts which codes and labels meet."""
        model, pool, factors = self.model, self.pool, self.dataset.factors
        if model.labels is None:
            labels = Labels(pool.labels, factors) if factors else None
            model = dataclasses.replace(model, parents=pool.codes, labels=labels)
        self._lift = model.lift
        if model.labels and factors == model.labels.factors:
            self.labelled = model

    def _steps(self) -> list[tuple[str, Callable[[], object]]]:
        """What must be done so that no answer waits for more than itself."""
        some = np.arange(self.num_codes) % len(self._codebook)  # codes to compile with
        work: list[Callable[[], object]] = [
            lambda: self.decode(some[None]),
            lambda: self.decode(some[None].repeat(BATCH, 0)),
            lambda: self.pair(some, some),
            lambda: self.recombine(jax.random.key(0)),
            lambda: self.encode(np.zeros((self.size, self.size, 3), np.uint8)),
            lambda: self.nearest(self.pool.codes[0]),
        ]
        if self.labelled and self.labelled.labels:
            value = int(self.labelled.labels.values[0, 0])
            work.append(lambda: self.edit(some, 0, value))
        steps = [("compiling", each) for each in work]
        for start in range(self._searched, len(self.pool.codes), DECODED):
            steps.append(("decoding training images", partial(self._decode_more, start)))
        if self.labelled:
            steps.append(("learning to read factors", self._fit))
        if self.has_prior:
            steps.append(("compiling the prior", lambda: self.draw(jax.random.key(0))))
        return steps

    def _decode_more(self, start: int) -> None:
        """Adds pictures of the training images from `start` on."""
        part = self.pool.codes[start : start + DECODED]
        images = [self.decode(part[i : i + BATCH]) for i in range(0, len(part), BATCH)]
        filled = np.resize(np.concatenate(images), (DECODED, self.size, self.size, 3))
        self.pool.small[start : start + DECODED] = np.asarray(shrink(filled))[: len(part)]
        self._searched = start + len(part)

    def _fit(self) -> None:
        """Fits what reads factors from images."""
        assert self.labelled and self.labelled.labels
        self.probe = fit_probe(self.pool.small, self.pool.labels, self.labelled.labels.factors)

    def take(self, dataset: Dataset) -> None:
        """Shows the test images of a data set instead of those that are decoded."""
        self.dataset = dataclasses.replace(self.dataset, test=dataset.test)
        self.num_examples, self._example_name = len(dataset.test), "test image"
        self.__dict__.pop("opening", None)

    @property
    def has_prior(self) -> bool:
        """Whether `draw` can be used."""
        return self.model.prior is not None

    @cached_property
    def _meanings(self) -> dict[str, Any]:
        codes, labels, _ = self.pool
        space, factors = self.model.space, self.dataset.factors
        return find_meanings(space, self._codebook, codes, labels, factors)

    def describe(self) -> dict[str, Any]:
        """Returns the `Model` of page/backend.js, JSON values."""
        model, psnr = self.model, self.model.metrics.get("psnr")
        terms = TERMS.get(model.config.data.name)
        labels = self.labelled.labels if self.labelled else None
        factors = labels.factors if labels else {}
        shown = [{*column.tolist()} for column in labels.values.T] if labels else []
        return {
            "id": model.fingerprint.hex(),
            "title": f"{model.config.name}, step {model.step:,}",
            "kind": model.space.kind,
            "imageSize": self.size,
            "numCodes": self.num_codes,
            "codebookSize": len(self._codebook),
            "examples": self.num_examples,
            "opening": self.opening,
            "exampleName": self._example_name,
            "trainingImages": len(self.pool.codes),
            "prior": self.has_prior,
            "batch": BATCH,
            "mostExamples": MAX_EXAMPLES,
            "mostBytes": MAX_BYTES,
            **self._meanings,
            "factors": [
                {
                    "name": words(name),
                    "values": list(values),
                    "unseen": [value for value in range(len(values)) if value not in seen],
                }
                for (name, values), seen in zip(factors.items(), shown, strict=True)
            ],
            "psnr": psnr if isinstance(psnr, float) else 0.0,
            "credit": terms.credit if terms else "",
        }

    @cached_property
    def opening(self) -> list[int]:
        """Two test images, by index, to begin with; none if there are fewer than two."""
        count = min(OPENING, self.num_examples)
        codes = [self.example(index).codes for index in range(count)]
        tried = [*itertools.combinations(range(count), 2)][: max(1, OPENING_SETS // self.num_codes)]
        seen = [(self.effects(codes[a], codes[b]) >= SHARE).sum() for a, b in tried]
        return list(tried[int(np.argmax(seen))]) if tried else []

    def effects(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the share of pixels of A, int [N], that the exchange of each single code for its
        partner in B changes by more than `SEEN` grey levels: f64 [N].
        """
        pairs = self.pair(a, b)
        sets = [*np.where(np.eye(len(a), dtype=bool), pairs.b, pairs.a), pairs.a]
        parts = [self.decode(np.stack(sets[i : i + BATCH])) for i in range(0, len(sets), BATCH)]
        images = np.concatenate(parts).astype(np.int16)
        return (np.abs(images[:-1] - images[-1]).max(-1) > SEEN).mean((1, 2))

    def check(self, sets: Any) -> np.ndarray:
        """Checks that what comes from outside is B >= 1 sets of N codes; returns int32 [B, N]."""
        n, lists = self.num_codes, isinstance(sets, list) and len(sets)
        if not lists or not all(
            isinstance(codes, list) and len(codes) == n and all(type(code) is int for code in codes)
            for codes in sets
        ):
            raise InputError(f"codes of this model are lists of {n} integers")
        try:
            return self.model.space.check(np.array(sets)).astype(np.int32)
        except ValueError as error:
            raise InputError(str(error)) from error

    def examples(self, start: int, count: int) -> np.ndarray:
        """Returns test images, uint8 [count, S, S, 3], or fewer at the end of the split."""
        if not 0 <= start < self.num_examples or not 1 <= count <= MAX_EXAMPLES:
            raise InputError(f"there are no {count} test images from {start} on")
        stop = min(start + count, self.num_examples)
        return np.stack([self.dataset.test[i]["image"] for i in range(start, stop)])

    def example(self, index: int) -> Picture:
        """Returns the test image with this index and its codes."""
        image, test = self.examples(index, 1)[0], self.dataset.test
        codes = test.codes[index] if isinstance(test, Decoded) else self.encode(image)
        return Picture(f"{self._example_name} {index}", codes, image)

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Encodes an image, uint8 [S, S, 3]: its codes, int32 [N]."""
        return np.asarray(self.model.encode(images_to_float(image[None])))[0]

    def decode(self, sets: np.ndarray) -> np.ndarray:
        """Decodes code sets, int [B, N], to uint8 [B, S, S, 3]; refuses more than `BATCH`."""
        if len(sets) > BATCH:
            raise InputError(f"{len(sets)} sets at once: give at most {BATCH}")
        filled = sets if len(sets) == 1 else np.resize(sets, (BATCH, sets.shape[1]))
        return np.asarray(images_to_uint8(self.model.decode(filled)))[: len(sets)]

    def pair(self, a: np.ndarray, b: np.ndarray) -> Pairs:
        """Pairs two code sets, int [N]."""
        return Pairs(*map(np.asarray, sampling.pair_codes(self.model.space, self._codebook, a, b)))

    def recombine(self, key: jax.Array) -> NewFace:
        """Recombines two random training images: paired as on the page, chosen as in samples."""
        key_parents, key_mix = jax.random.split(key)
        if self.model.config.sample.nearest_of == 1:
            pair = sampling.random_parents(key_parents, 1, len(self.pool.codes))[0]
        else:
            pair = self._parents[int(jax.random.randint(key_parents, (), 0, len(self._parents)))]
        first, second = pair.tolist()
        a, b = self._training_image(first), self._training_image(second)
        pairs = self.pair(a.codes, b.codes)
        codes_a, partners = jnp.asarray(pairs.a)[None], jnp.asarray(pairs.b)[None]
        share = sampling.draw_share(key_mix, 0.5, self.model.config.sample.spread)
        exchanged = sampling.choose_pairs(
            self.model.space, codes_a, partners, self._codebook, key_mix, share, self._lift
        )
        return NewFace(a, b, pairs, np.where(exchanged[0], pairs.b, pairs.a))

    def draw(self, key: jax.Array) -> Picture:
        """Draws a new face from the prior, without parents."""
        codes = np.asarray(self.model.sample_prior(key, 1, TEMPERATURE))[0]
        return Picture("new face by the prior", codes, self.decode(codes[None])[0])

    @cached_property
    def _parents(self) -> np.ndarray:
        """Pairs of training images that fit, int32 [PARENTS, 2], all matched at once."""
        config, space = self.model.config, self.model.space
        key, nearest_of = jax.random.key(config.seed), config.sample.nearest_of
        codes, codebook = self.pool.codes, self._codebook
        pairs = sampling.near_parents(space, key, PARENTS, codes, codebook, nearest_of=nearest_of)
        return np.asarray(pairs)

    def nearest(self, codes: np.ndarray) -> Nearest:
        """Finds the training image that looks most like a decoded set, int [N]."""
        image = self.decode(codes[None])[0]
        count = max(self._searched, 1)
        picture = self._training_image(int(nearest(image, self.pool.small, count)))
        difference = np.abs(image.astype(np.float32) - picture.image).mean()
        return Nearest(picture, float(difference), count)

    def neighbours(self, code: int) -> np.ndarray:
        """Returns the other entries that may replace one, by distance: int, at most [K - 1]."""
        entries = np.asarray(self._codebook, np.float64)
        if not 0 <= code < len(entries):
            raise InputError(f"code {code}: entries are 0 to {len(entries) - 1}")
        others = np.setdiff1d(self.model.space.alternatives(code), code)
        distance = np.square(entries[others] - entries[code]).sum(-1)
        return others[np.argsort(distance, kind="stable")]

    def read_factors(self, codes: np.ndarray) -> np.ndarray:
        """Returns the values of factors that decoded codes, int [N], show, -1 if unsure, as all are
        until the probe is fitted.
        """
        labels = self._labelled().labels
        assert labels
        if self.probe is None:
            return np.full(len(labels.factors), -1)
        small = np.asarray(shrink(self.decode(codes[None])))
        return read_values(small, self.probe, labels.factors)

    def edit(self, codes: np.ndarray, factor: int, value: int) -> np.ndarray:
        """Gives a factor another value; see `factors.edit_in_order`."""
        return edit_in_order(self._labelled(), codes, factor, value)

    def write_codes(self, codes: np.ndarray) -> bytes:
        """Writes a code set, int [N], as the contents of a file of `pivq_jax.codec`."""
        return to_bytes(self.model, codes[None], ["face"])

    def read_codes(self, content: bytes) -> np.ndarray:
        """Reads the first code set of a file of `pivq_jax.codec`, int32 [N].

        It may run beside the other methods, in a thread of its own.
        """
        return from_bytes(content, self.model, images=1, most=MAX_FILE_IMAGES).codes[0]

    def _labelled(self) -> TrainedModel:
        if self.labelled is None:
            raise InputError("there are no factors: images have no labels, or codes are ordered")
        return self.labelled

    def _training_image(self, index: int) -> Picture:
        image = self.dataset.train[index]["image"]
        return Picture(f"training image {index}", self.pool.codes[index], image)
