"""`toon_faces`: 12,000 cartoon faces with ten labelled factors, drawn on first use.

Based on Toon Head by Johan Melin (CC BY 4.0) and tooling by DiceBear.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pivq_jax.common.errors import InputError
from pivq_jax.data import toon_render
from pivq_jax.data.builder import Plan, build, usable_cores
from pivq_jax.data.shards import Entry

NAME = "toon_faces"
VERSION = "1.0.0"

_CARD = {
    "description": """\
Cartoon faces in ten independent factors: seven components (beard, clothes, eyebrows, eyes, hair,
mouth, rear hair) and three colours (clothes, hair, skin). The faces are aligned, on white, and all
different: no face of one split occurs in another. They are rendered locally from fixed seeds, so
nothing is downloaded.

The drawings are a remix of "ToonHead" (https://www.figma.com/community/file/1589627891082866389)
by Johan Melin (https://www.johanmelin.com), licensed under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/), as distributed and varied by DiceBear
(https://www.dicebear.com), rendered with resvg.
""",
    "citation": """\
@misc{melin_toon_head,
  author = {Johan Melin},
  title = {Toon Head},
  howpublished = {\\url{https://www.dicebear.com/styles/toon-head/}},
  note = {Avatar style of DiceBear, licensed under CC BY 4.0},
}
""",
    "homepage": "https://www.dicebear.com/styles/toon-head/",
    "license": "CC BY 4.0, Johan Melin",
}


class FaceRecipe(NamedTuple):
    """Draws faces; the file of an entry is the seed of the face."""

    image_size: int

    @property
    def identity(self) -> str:
        """See `shards.Recipe`."""
        return f"{NAME} {VERSION} {self.image_size}"

    def make(self, entry: Entry) -> tuple[bytes, dict[str, int]]:
        """See `shards.Recipe`."""
        png, factors = toon_render.render_face(entry.file, self.image_size)
        values = toon_render.FACTORS
        return png, {name: values[name].index(value) for name, value in factors.items()}


def prepared_faces(image_size: int, cache: Path, sizes: Mapping[str, int] | None = None) -> Path:
    """Returns the directory of the prepared faces, drawn on first use; see `load_toon_faces`."""
    if not 16 <= image_size <= 1024:
        raise InputError(f"toon_faces image_size is {image_size}: choose one from 16 to 1024")
    whole = toon_render.SPLIT_SIZES
    seeds = {
        split: toon_render.face_seeds(split, count)
        for split, count in {**whole, **(sizes or {})}.items()
    }
    counts = [len(of_split) for of_split in seeds.values()]
    name = f"{image_size}px-{VERSION}"
    if counts != list(whole.values()):
        name += "-" + "-".join(map(str, counts))

    target = cache / NAME / name

    def make_plan() -> Plan:
        toon_render.check_renderer()
        said = f"drawing the {sum(counts):,} faces of {NAME} to {target}, once for all commands"
        print(said, file=sys.stderr)
        return Plan(
            name=NAME,
            image_size=image_size,
            splits={
                split: [Entry(seed, VERSION, ()) for seed in of_split]
                for split, of_split in seeds.items()
            },
            factors=toon_render.FACTORS,
            recipe=FaceRecipe(image_size),
            origin={"name": NAME, "version": VERSION, "image_size": image_size},
            source=NAME,
            label=f"{NAME} {image_size}px: drawing",
            card=_CARD,
        )

    build(target, make_plan, workers=usable_cores())
    return target
