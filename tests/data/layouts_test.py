"""Lists of what a source holds: places, attributes and what is wrong with them."""

import collections
import itertools

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import image_folder, layouts
from tests.data import official


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def celeba(tmp_path, faces):
    return official.make_celeba(tmp_path / "celeba", faces, 6)


def files(listing):
    return {split: [entry.file for entry in part] for split, part in listing.splits.items()}


def test_the_folders_of_the_official_download_are_searched(celeba):
    flat = layouts.celeba(celeba)
    for folder, name in {
        "Img": "img_align_celeba",
        "Anno": "list_attr_celeba.txt",
        "Eval": "list_eval_partition.txt",
    }.items():
        (celeba / folder).mkdir()
        (celeba / name).rename(celeba / folder / name)
    nested = layouts.celeba(celeba)
    assert nested.root == celeba / "Img" / "img_align_celeba"
    assert (nested.splits, nested.factors) == (flat.splits, flat.factors)
    assert [len(entries) for entries in nested.splits.values()] == [4, 1, 1]


MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
REFUSED = [  # data set, file, its content (None: it is gone), the message
    ("celeba", "list_eval_partition.txt", "1.jpg 0\n2.jpg 3\n", "'2.jpg 3', not an image and 0, 1"),
    ("celeba", "list_eval_partition.txt", "1.jpg 0\n2.jpg 1\n", "names no test image"),
    ("celeba", "list_eval_partition.txt", None, "no list_eval_partition.txt in"),
    ("celeba", "list_attr_celeba.txt", f"{'9' * 5000}\nA\n", "does not begin with the number"),
    ("celeba", "list_attr_celeba.txt", "1\nA B\n000001.jpg -1 0\n", "not give 000001.jpg 2 values"),
    ("celeba", "list_attr_celeba.txt", "1\nA B\n000001.jpg -1\n", "not give 000001.jpg 2 values"),
    ("celeba", "list_attr_celeba.txt", "2\nA\n000001.jpg 1\n", "has 1 of the 2 images"),
    ("celeba", "list_attr_celeba.txt", "1\nA\n000001.jpg 1\n", "5 of the 6 images .* 000002.jpg"),
    ("celeba", "img_align_celeba/000003.jpg", None, "1 of the 6 images in .* in .*000003.jpg"),
    ("celeba_hq", "list_eval_partition.txt", None, "partition.txt in .* follow CelebA's: copy it"),
    ("celeba_hq", "CelebAMask-HQ-attribute-anno.txt", None, "no CelebAMask-HQ-attribute-anno.txt"),
    ("celeba_hq", MAPPING, None, "no CelebA-HQ-to-CelebA-mapping.txt"),
    ("celeba_hq", MAPPING, "idx orig_idx orig_file\n0 899\n", "has the line '0 899'"),
    ("celeba_hq", MAPPING, "idx orig_idx orig_file\n", "names no images"),
    ("celeba_hq", MAPPING, "idx orig_idx orig_file\n0 5 9.jpg\n", "1 of the 1 images .* 9.jpg"),
    ("celeba_hq", "CelebA-HQ-img/3.jpg", None, "1 of the 6 images in .* in .*3.jpg"),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), REFUSED)
def test_missing_and_damaged_files_are_named(tmp_path, faces, name, file, content, message):
    maker = {"celeba": official.make_celeba, "celeba_hq": official.make_celeba_hq}[name]
    source = maker(tmp_path / name, faces, 6)
    (source / file).unlink()
    if content is not None:
        (source / file).write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        layouts.READERS[name](source)
    assert "\n" not in str(refusal.value)


def test_an_encrypted_archive_is_named_as_such(celeba):
    official.zip_images(celeba)
    path = celeba / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # a flag of the first member
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted: unzip it, and give the folder"):
        layouts.celeba(celeba)


@pytest.mark.parametrize("side", ["images1024x1024", "thumbnails128x128"])
def test_ffhq_in_folders_of_a_thousand_or_flat(tmp_path, side, caplog):
    numbers = [0, 999, 1000, 59_999, 60_000, 69_999]
    names = [f"{n // 1000:02d}000/{n:05d}.png" for n in numbers]
    if side == "images1024x1024":
        names = [f"{n:05d}.png" for n in numbers]
    touch(tmp_path / side, *names, "LICENSE.txt", "ffhq-dataset-v2.json")
    for source in (tmp_path, tmp_path / side):
        listing = layouts.ffhq(source)
        assert files(listing) == {"train": names[:4], "validation": names[4:]}
        assert listing.shape == ((1024, 1024) if side == "images1024x1024" else (128, 128))
        assert f"{side} holds 6 of 70,000 images" in caplog.messages.pop()
    with pytest.raises(InputError, match="no images1024x1024 or thumbnails128x128 in"):
        layouts.ffhq(touch(tmp_path / "other", "x.png"))


@pytest.mark.parametrize("folder", ["lfw", "lfw-deepfunneled"])
def test_lfw_by_its_folder_or_what_holds_it(tmp_path, folder):
    names = [f"{p}/{p}_{n:04d}.jpg" for p in ("A_B", "C", "D_E", "F-G_H") for n in (1, 2)]
    others = ["pairs.txt", "A_B/C_0001.jpg", "A_B/A_B_0001.png", "A_B/A_B_1.jpg"]
    root = touch(tmp_path / "lfw" / folder / folder, *names, *others)
    for source in (root, root.parent, tmp_path):
        listing = layouts.lfw(source)
        assert listing.root == root and listing.shape == (250, 250) and not listing.factors
        found = files(listing)
        assert sorted(itertools.chain(*found.values())) == names
        persons = [{file.split("/")[0] for file in part} for part in found.values()]
        assert all(persons) and sum(map(len, persons)) == 4
    few = touch(tmp_path / "few", "A/A_0001.jpg", "A/A_0002.jpg", "B/B_0001.jpg", "c.jpg")
    with pytest.raises(InputError, match=r"of 2 persons, and needs 3 .*: give lfw, lfw-funneled"):
        layouts.lfw(few)


def test_attributes_of_a_folder_are_sorted_classes(tmp_path):
    """Numbers by their values, whatever their length."""
    source = touch(tmp_path / "images", "a.png", "b/c.jpg", "d.webp", ".hidden.png", "notes.txt")
    table, long = tmp_path / "table.csv", "9" * 5000
    rows = ["name, age group,hat ", f"d.webp,10, {long}", "b/c.jpg,-2,yes", f"a.png,9,{long}"]
    table.write_text("\ufeff" + "\r\n".join([*rows, "gone.png,30,no\r\n"]), encoding="utf-8")
    listing = image_folder.list_folder(source, table)
    assert listing.factors == {"age group": ("-2", "9", "10"), "hat": (long, "yes")}
    found = {e.file: e.factors for entries in listing.splits.values() for e in entries}
    assert found == {"a.png": (1, 0), "b/c.jpg": (0, 1), "d.webp": (2, 0)}
    assert image_folder.list_folder(source).factors == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,hat\na.png,no\n", r"2 of the 3 images .* are not in .*table.csv .* b.png"),
        ("name,hat\na.png,no\nb.png\n", "not give 'b.png' a value for each of 1"),
        ("name,hat\na.png,\n", "not give 'a.png' a value"),
        ("name,hat\na.png,no\nb.png,no\na.png,yes\n", "two rows for 'a.png', with other values"),
        ("name\na.png\n", "names no attributes"),
        ("name,image\na.png,1\n", "attribute named 'image'"),
        ("name,hat,hat\na.png,1,1\n", "attribute named 'hat'"),
        ("name,a/b\na.png,1\n", "attribute named 'a/b'"),
        (f"name,{'あ' * 67}\na.png,1\n", "at most 200 bytes"),
        (b"name,hat\n\xff\xfe", "cannot read .*table.csv"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(tmp_path, table, message):
    source = touch(tmp_path / "images", "a.png", "b.png", "c.png")
    content = table if isinstance(table, bytes) else table.encode()
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        image_folder.list_folder(source, tmp_path / "table.csv")


def test_a_column_of_many_values_is_no_attribute_and_not_read_to_its_end(tmp_path):
    names = [f"{i}.png" for i in range(300)]
    rows = "".join(f"{name},{i}\n" for i, name in enumerate(names))
    path = tmp_path / "table.csv"
    path.write_text(f"name,id\n{rows}a row that is not read any more\n")
    with pytest.raises(InputError, match="more than 256 values of id"):
        image_folder.read_csv(path, names)


def test_folders_called_like_splits_and_images_without_a_reader_are_warned_of(tmp_path, caplog):
    touch(tmp_path, *(f"{folder}/{name}.png" for folder in ("train", "Test") for name in "abc"))
    image_folder.list_folder(tmp_path)
    (message,) = caplog.messages
    assert "images of test are trained on, too" in message
    caplog.clear()
    image_folder.list_folder(tmp_path / "train")
    assert not caplog.messages
    source = touch(tmp_path / "few", "a.png", "b.png", "c.jxl", "d/e.jxl")
    with pytest.raises(InputError, match=r"holds 2 images .*; 2 \.jxl are not read\): a data set"):
        image_folder.list_folder(source)
    image_folder.list_folder(touch(source, "f.png"))
    assert caplog.messages == [f"{source}: 2 .jxl are not read"]


def test_the_first_images_of_a_split_are_a_sample_of_all_folders(tmp_path):
    folders = ("boots", "coats", "shirts")
    touch(tmp_path, *(f"{folder}/{index}.png" for folder in folders for index in range(100)))
    train = files(image_folder.list_folder(tmp_path))["train"]
    first = collections.Counter(file.split("/")[0] for file in train[:60])
    assert all(10 < first[folder] < 30 for folder in folders)
    touch(tmp_path, "boots/new.png")
    again = files(image_folder.list_folder(tmp_path))["train"]
    assert [file for file in again if file != "boots/new.png"] == train
