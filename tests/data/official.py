"""Source trees in the official layouts, made of Toon Head faces."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ATTRIBUTES = tuple(f"{'5_o_Clock_Shadow' if i == 0 else f'Attribute_{i}'}" for i in range(40))


def attribute(index: int, number: int) -> int:
    """Attribute `number` of image `index`, 0 or 1."""
    return (index * 7 + number * 3) % 5 % 2


def face(faces: np.ndarray, index: int, size: tuple[int, int], file: Path) -> None:
    """Image `index`, (width, height) = `size`: each is different."""
    pixels = np.roll(faces[index % len(faces)], index // len(faces), axis=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    image.save(file, quality=95) if file.suffix == ".jpg" else image.save(file, compress_level=1)


def partition(count: int) -> list[int]:
    """The split of each of `count` images: most train, the last ones validation and test."""
    held = max(1, count // 6)
    return [0] * (count - 2 * held) + [1] * held + [2] * held


def _write_attributes(file: Path, names: list[str]) -> None:
    rows = [
        f"{name} " + " ".join(f"{2 * attribute(i, n) - 1:2d}" for n in range(40))
        for i, name in enumerate(names)
    ]
    file.write_text("\n".join([str(len(names)), " ".join(ATTRIBUTES), *rows]) + "\n")


def make_celeba(root: Path, faces: np.ndarray, count: int, zipped: bool = False) -> Path:
    """CelebA: image i is 00000(i + 1).jpg."""
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        face(faces, i, (178, 218), root / "img_align_celeba" / name)
    _write_attributes(root / "list_attr_celeba.txt", names)
    lines = [f"{name} {split}" for name, split in zip(names, partition(count), strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    if zipped:
        zip_images(root)
    return root


def zip_images(root: Path) -> None:
    """The folder becomes img_align_celeba.zip."""
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        for file in sorted((root / "img_align_celeba").iterdir()):
            archive.write(file, f"img_align_celeba/{file.name}")
            file.unlink()
    (root / "img_align_celeba").rmdir()


def original(index: int) -> str:
    """The image of CelebA that image `index` of CelebA-HQ was made of."""
    return f"{900 - 13 * index:06d}.jpg"


def make_celeba_hq(root: Path, faces: np.ndarray, count: int) -> Path:
    """CelebAMask-HQ, with CelebA's partition beside."""
    names = [f"{i}.jpg" for i in range(count)]
    folder = root / "CelebA-HQ-img"
    for i, name in enumerate(names):
        face(faces, i, (1024, 1024), folder / name)
    _write_attributes(root / "CelebAMask-HQ-attribute-anno.txt", names)
    rows = [f"{i}\t\t{int(original(i)[:6]) - 1}\t\t{original(i)}" for i in range(count)]
    mapping = "\n".join(["idx\t\torig_idx\torig_file", *rows]) + "\n"
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(mapping)
    lines = [f"{original(i)} {split}" for i, split in enumerate(partition(count))]
    lines += [f"{i:06d}.jpg 0" for i in range(901, 1000)]  # of CelebA, not of CelebA-HQ
    (root / "list_eval_partition.txt").write_text("\n".join(sorted(lines)) + "\n")
    return root


def make_ffhq(root: Path, faces: np.ndarray, count: int) -> Path:
    """FFHQ: the first images of the training and of the validation part."""
    root, held = root / "thumbnails128x128", max(1, count // 6)
    numbers = [*range(count - held), *range(60_000, 60_000 + held)]
    for i, number in enumerate(numbers):
        folder = f"{number // 1000:02d}000"
        face(faces, i, (128, 128), root / folder / f"{number:05d}.png")
    (root / "LICENSE.txt").write_text("not an image")
    return root.parent


def make_lfw(root: Path, faces: np.ndarray, count: int) -> Path:
    """LFW: one to four photographs of each person, and its lists."""
    person = number = 0
    for i in range(count):
        number = number + 1 if number <= person % 4 else 1
        person += number == 1
        name = f"Person_{chr(65 + person % 26)}_{person}"
        file = root / "lfw-deepfunneled" / name / f"{name}_{number:04d}.jpg"
        face(faces, i, (250, 250), file)
    (root / "lfw-deepfunneled" / "pairs.txt").write_text("not an image")
    return root


def make_image_folder(root: Path, faces: np.ndarray, count: int) -> Path:
    """A tree of images of mixed sizes and kinds, with `labels.csv` outside it."""
    rows = ["file,hair,number of eyes"]
    for i in range(count):
        file = f"part_{i % 3}/{i}.{'png' if i % 2 else 'jpg'}"
        face(faces, i, (40 + i % 9, 50), root / "images" / file)
        rows.append(f"{file},{('red', 'black')[attribute(i, 0)]},{(2, 10)[attribute(i, 1)]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root / "images"
