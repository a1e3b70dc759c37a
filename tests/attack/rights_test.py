"""Files and folders that may not be read or written: one line and status 2, also as root."""

import shutil

import pytest

pytestmark = pytest.mark.slow

# Root without the capabilities to override permissions is refused as anyone is.
WITHOUT_RIGHTS = """
import ctypes, runpy, sys
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None)
libc.capget(header, data)
for word in (0, 1):
    data[word] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
assert libc.capset(header, data) == 0
sys.argv = ["pivq_jax", *{arguments!r}]
runpy.run_module("pivq_jax.{module}", run_name="__main__", alter_sys=True)
"""

FOLDER = "--config=configs/image_folder.py:smoke"
PUBLISHED = "--pretrained=toon_faces"
# What loses which rights, and the command.
CASES = {
    "a workdir": ("place", 0o000, [FOLDER, "--config.data.name=random", "--workdir={place}/run"]),
    "a config": ("place/config.json", 0o000, ["--mode=evaluate", "--workdir={place}"]),
    "images": ("place", 0o000, [FOLDER, "--config.data.path={place}", "--workdir={other}"]),
    "an input": ("place", 0o000, ["compress", PUBLISHED, "--input={place}", "--output=x"]),
    "an output": (
        "place",
        0o555,
        ["compress", PUBLISHED, "--input={images}", "--output={place}/x"],
    ),
    "a new folder": ("place", 0o555, [PUBLISHED, "--mode=sample", "--output={place}/x/y"]),
}


@pytest.mark.parametrize("which", CASES)
def test_what_may_not_be_used_is_refused(commands, small_folder, tmp_path, which):
    file, mode, arguments = CASES[which]
    place, images = tmp_path / "place", shutil.copytree(small_folder, tmp_path / "images")
    place.mkdir()
    (place / "config.json").write_text("{}")
    names = {"place": place, "images": images, "other": tmp_path / "other"}
    given = [argument.format(**names) for argument in arguments]
    (tmp_path / file).chmod(mode)
    try:
        module = "codec" if "compress" in given else "main"
        done = commands.run(code=WITHOUT_RIGHTS.format(arguments=given, module=module))
    finally:
        place.chmod(0o755)
    assert done.code == 2 and "Traceback" not in done.stderr, done
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and str(place) in lines[0], done.stderr
