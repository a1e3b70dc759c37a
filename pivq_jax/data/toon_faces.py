"""`toon_faces`: 12,000 cartoon faces with ten labelled factors, drawn on first use.

The faces are in the "Toon Head" style of DiceBear by Johan Melin (CC BY 4.0). A face is a pure
function of its seed, and the seeds are fixed: `toon_faces/<split>/<i>` for i = 0, 1, 2, ..., except
for a few seeds that would repeat a previous face (`TWINS`).
"""

import functools
import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import sys
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import encode_png
from pivq_jax.data.builder import Entry, Plan, build, usable_cores
from pivq_jax.data.images import decode_image

NAME = "toon_faces"
VERSION = "1.0.0"

SPLIT_SIZES = {"train": 10_000, "validation": 1_000, "test": 1_000}

# Training seeds whose ten factors repeat those of a test, validation or earlier training face.
# Without them all 12,000 faces are distinct, so no held-out face occurs in the training split.
TWINS = frozenset({1344, 2197, 3651, 7064, 8359, 8529, 8579, 8638, 8907})

# The renderer that defines version 1.0.0 of the data set.
PINNED = {"dicebear-core": "10.7.0", "dicebear-styles": "10.6.0", "resvg-py": "0.5.0"}

# SHA-256 of the drawings (SVG) and factors of the first faces of every split.
FINGERPRINT = "a2314a8d9886d668f395c3a734cc92e43f70cbc7054f3d499376178299336fb7"

# The labelled factors and their values; `none` means that the component is absent.
FACTORS: dict[str, tuple[str, ...]] = {
    "beard": ("none", "chin", "chinMoustache", "fullBeard", "longBeard", "moustacheTwirl"),
    "clothes": ("dress", "openJacket", "shirt", "tShirt", "turtleNeck"),
    "eyebrows": ("angry", "happy", "neutral", "raised", "sad"),
    "eyes": ("bow", "happy", "humble", "wide", "wink"),
    "hair": ("bun", "sideCombed", "spiky", "undercut"),
    "mouth": ("agape", "angry", "laugh", "sad", "smile"),
    "rear_hair": ("none", "longStraight", "longWavy", "neckHigh", "shoulderHigh"),
    "clothes_color": (
        *("#151613", "#0b3286", "#545454", "#147f3c", "#f97316"),
        *("#ec4899", "#731ac3", "#b11f1f", "#e8e9e6", "#eab308"),
    ),
    "hair_color": ("#2c1b18", "#d6b370", "#724133", "#a55728", "#b58143"),
    "skin_color": ("#5c3829", "#f1c3a5", "#a36b4f", "#c68e7a", "#b98e6a"),
}

SPELLED = {"sideComed": "sideCombed"}  # values that DiceBear spells otherwise

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


def face_seeds(split: str, count: int | None = None) -> list[str]:
    """Returns the DiceBear seeds of the first faces of a split, by default of all."""
    size, left_out = SPLIT_SIZES[split], TWINS if split == "train" else ()
    kept = [i for i in range(size + len(left_out)) if i not in left_out]
    return [f"toon_faces/{split}/{i}" for i in kept[: count or size]]


@functools.cache
def _style() -> Any:
    from dicebear import Style

    file = importlib.resources.files("dicebear_styles") / "toon-head.json"
    return Style(json.loads(file.read_text("utf-8")))


def _avatar(seed: str, size: int) -> Any:
    from dicebear import Avatar

    return Avatar(_style(), {"seed": seed, "size": size})


def face_factors(seed: str) -> dict[str, str]:
    """Returns the factors of a face: one of the values `FACTORS[name]` for each factor name."""
    options = _avatar(seed, 64).to_json()["options"]
    factors = {}
    for name in FACTORS:
        head, _, tail = name.partition("_")
        if tail == "color":
            factors[name] = options[f"{head}Color"][0]
        else:
            drawn = options.get(f"{head}{tail.capitalize()}Variant", "none")
            factors[name] = SPELLED.get(drawn, drawn)
    return factors


def render_face(seed: str, size: int) -> bytes:
    """Returns a PNG file of a face on white."""
    import resvg_py

    svg = _avatar(seed, size).to_string()
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    return encode_png(decode_image(io.BytesIO(bytes(drawn)), size, name=seed))


def check_renderer() -> None:
    """Raises InputError unless the packages draw the faces of version 1.0.0 of the data set."""
    pins = " ".join(f"{name}=={version}" for name, version in PINNED.items())
    try:
        installed = {name: importlib.metadata.version(name) for name in PINNED}
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"toon_faces is drawn by {error.name}, which is not installed: pip install {pins}"
        ) from None
    others = ", ".join(f"{n} {v}" for n, v in installed.items() if v != PINNED[n])
    digest = hashlib.sha256()
    for seed in [seed for split in SPLIT_SIZES for seed in face_seeds(split, 8)]:
        factors = json.dumps(face_factors(seed), sort_keys=True)
        digest.update(f"{seed}\n{_avatar(seed, 64).to_string()}\n{factors}\n".encode())
    # The fingerprint covers vector drawings only; another version of resvg may give other pixels.
    if others or digest.hexdigest() != FINGERPRINT:
        raise InputError(
            "the installed packages draw other faces than toon_faces 1.0.0 "
            f"({others or 'versions are the pinned ones'}): pip install {pins}"
        )


def _draw(image_size: int, entry: Entry) -> tuple[bytes, list[int]]:
    """Draws the face whose seed is the file of an entry; see `builder.Make`."""
    factors = face_factors(entry.file)
    return render_face(entry.file, image_size), [FACTORS[n].index(factors[n]) for n in FACTORS]


def prepare_faces(image_size: int, cache: Path) -> Path:
    """Draws the faces on first use; returns their directory."""
    if not 16 <= image_size <= 1024:
        raise InputError(f"toon_faces image_size is {image_size}: choose one from 16 to 1024")
    target = cache / NAME / f"{image_size}px-{VERSION}"

    def make_plan() -> Plan:
        check_renderer()
        count = sum(SPLIT_SIZES.values())
        message = f"drawing the {count:,} faces of {NAME} to {target}, once for all commands"
        print(message, file=sys.stderr)
        return Plan(
            name=NAME,
            image_size=image_size,
            splits={s: [Entry(seed, VERSION, ()) for seed in face_seeds(s)] for s in SPLIT_SIZES},
            factors=FACTORS,
            identity=f"{NAME} {VERSION} {image_size}",
            make=functools.partial(_draw, image_size),
            origin={"name": NAME, "version": VERSION, "image_size": image_size},
            source=NAME,
            card=_CARD,
        )

    build(target, make_plan, workers=usable_cores())
    return target
