"""Lists of what a source holds: places, attributes and what is wrong with them."""

import collections
import zipfile

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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list_eval_partition.txt", "000001.jpg 0\n000002.jpg 3\n", "'000002.jpg 3', not an image"),
        ("list_eval_partition.txt", "000001.jpg 0\n000002.jpg 1\n", "names no test image"),
        ("list_eval_partition.txt", "", "names no train image"),
        ("list_attr_celeba.txt", "", "does not begin with the number of images"),
        ("list_attr_celeba.txt", "1\nA B\n000001.jpg -1 0\n", "not give 000001.jpg 2 values"),
        ("list_attr_celeba.txt", "1\nA B\n000001.jpg -1\n", "not give 000001.jpg 2 values"),
        ("list_attr_celeba.txt", "2\nA\n000001.jpg 1\n", "has 1 of the 2 images"),
        ("list_attr_celeba.txt", "1\nA\n000001.jpg 1\n", "5 of the 6 images .* 000002.jpg"),
    ],
)
def test_damaged_lists_of_celeba(celeba, name, content, message):
    (celeba / name).write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        layouts.celeba(celeba)
    assert str(celeba / name) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("celeba", "list_attr_celeba.txt", "no list_attr_celeba.txt in"),
        ("celeba", "list_eval_partition.txt", "no list_eval_partition.txt in"),
        ("celeba", "img_align_celeba/000003.jpg", "1 of the 6 images in .* in .*000003.jpg"),
        ("celeba_hq", "list_eval_partition.txt", "partition.txt in .* follow CelebA's: copy it"),
        ("celeba_hq", "CelebAMask-HQ-attribute-anno.txt", "no CelebAMask-HQ-attribute-anno.txt"),
        ("celeba_hq", "CelebA-HQ-to-CelebA-mapping.txt", "no CelebA-HQ-to-CelebA-mapping.txt"),
        ("celeba_hq", "CelebA-HQ-img/3.jpg", "1 of the 6 images in .* in .*3.jpg"),
    ],
)
def test_what_is_missing_is_named(tmp_path, make_source, name, file, message):
    source = make_source(name, 6)
    (source / file).unlink()
    with pytest.raises(InputError, match=message):
        layouts.READERS[name](source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("idx orig_idx orig_file\n0 899\n", "has the line '0 899'"),
        ("idx orig_idx orig_file\n", "names no images"),
        ("idx orig_idx orig_file\n0 5 999999.jpg\n", "1 of the 1 images .* 999999.jpg"),
    ],
)
def test_damaged_mappings_of_celeba_hq(tmp_path, faces, content, message):
    source = official.make_celeba_hq(tmp_path, faces, 3, empty=True)
    (source / "CelebA-HQ-to-CelebA-mapping.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        layouts.celeba_hq(source)


@pytest.mark.parametrize("side", ["images1024x1024", "thumbnails128x128"])
@pytest.mark.parametrize("folders", [True, False])
def test_ffhq_in_folders_of_a_thousand_or_flat(tmp_path, side, folders, caplog):
    numbers = [0, 999, 1000, 59_999, 60_000, 69_999]
    names = [f"{n // 1000:02d}000/{n:05d}.png" if folders else f"{n:05d}.png" for n in numbers]
    touch(tmp_path / side, *names, "LICENSE.txt", "ffhq-dataset-v2.json")
    for source in (tmp_path, tmp_path / side):
        listing = layouts.ffhq(source)
        assert [e.file for e in listing.splits["train"]] == names[:4]
        assert [e.file for e in listing.splits["validation"]] == names[4:]
        assert set(listing.splits) == {"train", "validation"}
        assert listing.shape == ((1024, 1024) if side == "images1024x1024" else (128, 128))
        assert f"{side} holds 6 of 70,000 images" in caplog.messages.pop()


def test_an_ffhq_that_is_elsewhere_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="no images1024x1024 or thumbnails128x128 in"):
        layouts.ffhq(touch(tmp_path / "other", "x.png"))


@pytest.mark.parametrize("folder", ["lfw", "lfw-funneled", "lfw_funneled", "lfw-deepfunneled"])
def test_lfw_by_its_folder_or_what_holds_it(tmp_path, folder):
    names = [f"{p}/{p}_{n:04d}.jpg" for p in ("A_B", "C", "D_E", "F-G_H") for n in (1, 2)]
    others = ["pairs.txt", "lfw-names.txt", "A_B/C_0001.jpg", "A_B/A_B_0001.png", "A_B/A_B_1.jpg"]
    touch(tmp_path / "x" / folder, *names, *others)
    nested = tmp_path / "y" / "lfw" / folder / folder
    touch(nested, *names)
    for source, root in (
        (tmp_path / "x", tmp_path / "x" / folder),
        (tmp_path / "x" / folder, tmp_path / "x" / folder),
        (tmp_path / "y", nested),
        (tmp_path / "y" / "lfw", nested),
    ):
        listing = layouts.lfw(source)
        assert listing.root == root and listing.shape == (250, 250) and not listing.factors
        found = {split: [e.file for e in part] for split, part in listing.splits.items()}
        assert sorted(f for part in found.values() for f in part) == sorted(names)
        persons = {split: {file.split("/")[0] for file in part} for split, part in found.items()}
        assert all(persons.values()) and sum(map(len, persons.values())) == 4


def test_an_lfw_without_persons_is_refused(tmp_path):
    source = touch(tmp_path / "lfw", "A/A_0001.jpg", "A/A_0002.jpg", "B/B_0001.jpg", "c.jpg")
    with pytest.raises(InputError, match=r"of 2 persons, and needs 3 .*: give lfw, lfw-funneled"):
        layouts.lfw(source)


def test_attributes_of_a_folder_are_sorted_classes(tmp_path):
    source = touch(tmp_path / "images", "a.png", "b/c.jpg", "d.webp", ".hidden.png", "notes.txt")
    table = tmp_path / "table.csv"
    rows = [
        "name, age group,hat ",
        "d.webp,10, no",
        "b/c.jpg,-2,yes",
        "a.png,9,no",
        "gone.png,30,no",
    ]
    table.write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    listing = image_folder.list_folder(source, table)
    assert listing.factors == {"age group": ("-2", "9", "10"), "hat": ("no", "yes")}
    found = {e.file: e.factors for entries in listing.splits.values() for e in entries}
    assert found == {"a.png": (1, 0), "b/c.jpg": (0, 1), "d.webp": (2, 0)}
    assert image_folder.list_folder(source).factors == {}


def test_a_column_of_many_values_is_no_attribute(tmp_path):
    names = [f"{i}.png" for i in range(300)]
    path = tmp_path / "table.csv"
    path.write_text("name,id\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    with pytest.raises(InputError, match="more than 256 values of id"):
        image_folder.read_csv(path, names)
    assert len(image_folder.read_csv(path, names[:9])[1]) == 9
    with path.open("a") as file:
        file.write("a row that is not read any more\n")
    with pytest.raises(InputError, match="more than 256 values of id"):
        image_folder.read_csv(path, names)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,hat\na.png,no\n", r"2 of the 3 images .* are not in .*table.csv .* b.png"),
        ("name,hat\na.png,no\nb.png\n", "not give 'b.png' a value for each of 1"),
        ("name,hat\na.png,\n", "not give 'a.png' a value"),
        ("name,hat\na.png,no\nb.png,no\na.png,yes\n", "two rows for 'a.png', with other values"),
        ("name\na.png\n", "names no attributes"),
        ("", "names no attributes"),
        ("name,image\na.png,1\n", "attribute named 'image'"),
        ("name,hat,hat\na.png,1,1\n", "attribute named 'hat'"),
        ("name,a/b\na.png,1\n", "attribute named 'a/b'"),
        (f"name,{'あ' * 67}\na.png,1\n", "at most 200 bytes"),
        (b"name,hat\n\xff\xfe", "cannot read .*table.csv"),
        (None, "cannot read .*table.csv"),
    ],
)
def test_attributes_that_do_not_fit(tmp_path, table, message):
    source = touch(tmp_path / "images", "a.png", "b.png", "c.png")
    if table is not None:
        content = table if isinstance(table, bytes) else table.encode()
        (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        image_folder.list_folder(source, tmp_path / "table.csv")
    assert "\n" not in str(refusal.value)


def test_numbers_of_any_length_are_values(tmp_path):
    source, long = touch(tmp_path / "images", "a.png", "b.png", "c.png"), "9" * 5000
    (tmp_path / "table.csv").write_text(f"name,id\na.png,{long}\nb.png,10\nc.png,9\n")
    factors = image_folder.list_folder(source, tmp_path / "table.csv").factors
    assert factors == {"id": ("9", "10", long)}


@pytest.mark.parametrize("number", ["9" * 5000, "²"], ids=len)
def test_numbers_in_lists_have_a_few_digits(celeba, number):
    path = celeba / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace("6", number, 1))
    with pytest.raises(InputError, match="does not begin with the number of images"):
        layouts.celeba(celeba)
    (celeba / "mapping.txt").write_text(f"idx orig_idx orig_file\n{number} 0 000001.jpg\n")
    with pytest.raises(InputError, match="has the line"):
        layouts.read_mapping(celeba / "mapping.txt")


def test_an_encrypted_archive_is_named_as_such(celeba):
    official.zip_images(celeba)
    path = celeba / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # a flag of the first member
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted: unzip it, and give the folder"):
        layouts.celeba(celeba)


def test_folders_that_are_called_like_splits_are_warned_of(tmp_path, caplog):
    touch(tmp_path, *(f"{folder}/{name}.png" for folder in ("train", "Test") for name in "abc"))
    image_folder.list_folder(tmp_path)
    (message,) = caplog.messages
    assert "images of test are trained on, too" in message
    caplog.clear()
    image_folder.list_folder(tmp_path / "train")
    assert not caplog.messages


def test_images_without_a_reader_are_mentioned(tmp_path, caplog):
    source = touch(tmp_path, "a.png", "b.png", "c.jxl", "d/e.jxl")
    with pytest.raises(InputError, match=r"holds 2 images .*; 2 \.jxl are not read\): a data set"):
        image_folder.list_folder(source)
    assert not caplog.records
    image_folder.list_folder(touch(tmp_path, "f.png"))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 2 .jxl are not read"
    ]


def test_a_member_without_a_name_is_none_of_the_images(celeba):
    official.zip_images(celeba)
    with zipfile.ZipFile(celeba / "img_align_celeba.zip", "a") as archive:
        archive.writestr("x", b"")
        archive.filelist[-1].filename = ""
    assert sum(map(len, layouts.celeba(celeba).splits.values())) == 6


def test_the_first_images_of_a_split_are_a_sample_of_all_folders(tmp_path):
    for folder in ("boots", "coats", "shirts"):
        (tmp_path / folder).mkdir()
        for index in range(100):
            (tmp_path / folder / f"{index}.png").touch()
    train = [entry.file for entry in image_folder.list_folder(tmp_path).splits["train"]]
    first = collections.Counter(file.split("/")[0] for file in train[:60])
    assert all(10 < first[folder] < 30 for folder in ("boots", "coats", "shirts"))
    (tmp_path / "boots" / "new.png").touch()
    again = [entry.file for entry in image_folder.list_folder(tmp_path).splits["train"]]
    assert [file for file in again if file != "boots/new.png"] == train
