"""The default data set: 12,000 cartoon faces with ten labelled factors, drawn locally."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from pivq_jax.common.errors import InputError
from pivq_jax.data import toon_render
from pivq_jax.data.preparation import progress

_DESCRIPTION = """\
Cartoon faces in ten independent factors: seven components (beard, clothes, eyebrows, eyes, hair,
mouth, rear hair) and three colours (clothes, hair, skin). The faces are aligned, on white, and all
different: no face of one split occurs in another. They are rendered locally from fixed seeds, so
nothing is downloaded.

The drawings are a remix of "ToonHead" (https://www.figma.com/community/file/1589627891082866389)
by Johan Melin (https://www.johanmelin.com), licensed under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/), as distributed and varied by DiceBear
(https://www.dicebear.com), rendered with resvg.
"""

_CITATION = """\
@misc{melin_toon_head,
  author = {Johan Melin},
  title = {Toon Head},
  howpublished = {\\url{https://www.dicebear.com/styles/toon-head/}},
  note = {Avatar style of DiceBear, licensed under CC BY 4.0},
}
"""


@dataclasses.dataclass(kw_only=True)
class ToonFacesConfig(tfds.core.BuilderConfig):
    """Configuration of a `ToonFaces` builder.

    Attributes:
        image_size: height and width in pixels.
        sizes: number of images per split; smaller than the full splits in tests.
    """

    image_size: int = 64
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)


def _config(image_size: int, sizes: dict[str, int]) -> ToonFacesConfig:
    name = f"{image_size}px"
    if sizes != toon_render.SPLIT_SIZES:
        name += "_" + "_".join(str(count) for count in sizes.values())
    return ToonFacesConfig(
        name=name, description=f"{image_size} pixels", image_size=image_size, sizes=sizes
    )


class ToonFaces(tfds.core.GeneratorBasedBuilder):
    """Builder of `toon_faces`; works without TensorFlow."""

    name = "toon_faces"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    # Nothing is downloaded; searching for a list of checksums would need importlib_resources.
    url_infos: ClassVar[dict[str, Any]] = {}
    BUILDER_CONFIGS: ClassVar = [_config(size, toon_render.SPLIT_SIZES) for size in (64, 32, 128)]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        labels = {
            name: tfds.features.ClassLabel(names=list(values))
            for name, values in toon_render.FACTORS.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    **labels,
                }
            ),
            homepage="https://www.dicebear.com/styles/toon-head/",
            citation=_CITATION,
            license="CC BY 4.0, Johan Melin",
            disable_shuffling=True,  # image i of a split is the face of its seed i
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        toon_render.check_renderer()
        return {split: self._generate_examples(split) for split in toon_render.SPLIT_SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
        size, count = self.builder_config.image_size, self.builder_config.sizes[split]
        faces = toon_render.render_faces(split, size, count=count)
        bar = progress(faces, f"toon_faces {size}px: drawing {split}", count)
        drawn = []
        for index, (png, factors) in enumerate(bar):
            # A file object, because tensorflow-datasets encodes arrays with TensorFlow.
            yield index, {"image": io.BytesIO(png), **factors}
            drawn.append(factors)
        whole = count == toon_render.SPLIT_SIZES[split]
        digest = toon_render.factors_digest(drawn)
        if whole and digest != toon_render.FACTORS_SHA256[split]:
            raise RuntimeError(
                f"the {split} faces are not those of toon_faces {self.version}: the digest of "
                f"their factors is {digest}, not {toon_render.FACTORS_SHA256[split]}"
            )


def make_config(image_size: int = 64, sizes: dict[str, int] | None = None) -> ToonFacesConfig:
    """Returns the configuration for an image size and, for tests, smaller splits.

    Args:
        image_size: height and width in pixels, 16 to 1024.
        sizes: number of images per split, the first ones of the full split; missing splits are
            complete.

    Returns:
        A `ToonFacesConfig`.

    Raises:
        InputError: if the image size is out of range, or a split is unknown or too large.
    """
    if not 16 <= image_size <= 1024:
        raise InputError(f"toon_faces image_size is {image_size}: choose one from 16 to 1024")
    for split, count in (sizes or {}).items():
        toon_render.face_seeds(split, count)  # raises an error for invalid splits
    config = _config(image_size, {**toon_render.SPLIT_SIZES, **(sizes or {})})
    # tensorflow-datasets requires its own object for predefined configurations.
    return ToonFaces.builder_configs.get(config.name, config)
