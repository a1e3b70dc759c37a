"""The check of docs/check_numbers.py: what the tables of the pages show is what the runs have."""

import json
import re
from pathlib import Path

import pytest

from docs import check_numbers as check
from tests.conftest import ROOT

RUN = {"psnr": 55.8162, "lpips": {"mean": 0.0014, "std": 0.00021}, "codes_used": 10_511}
PAGE = """
<!-- numbers: columns run.json . -->

| | run |
| --- | ---: |
| PSNR dB | 55.82 |
| LPIPS | 0.0014 ± 0.0002 |
| entries used | 10,511 |
| note | none |
"""


def write(folder: Path, page: str) -> Path:
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "page.md").write_text(page)
    return folder


def test_numbers_of_a_run_pass_at_the_digits_shown(tmp_path):
    assert check.faults("page.md", write(tmp_path, PAGE)) == []


@pytest.mark.parametrize("page", check.PAGES)
def test_the_pages_show_what_the_runs_have(page):
    assert check.faults(page) == []


@pytest.mark.parametrize("page", check.PAGES)
def test_every_changed_number_of_the_pages_is_found(page, tmp_path):
    """Copies the page and its files, changes the last digit of one number of a table at a time."""
    text = (ROOT / page).read_text()
    (tmp_path / "docs").mkdir()
    for name in ("docs/tables", "pivq_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    changed = 0
    for note, (_, *rows) in check.tables(text):
        for row in rows if note.partition(" ")[0] in ("columns", "rows") else []:
            lines = text.split("\n")
            line = next(x for x in lines if row == [c.strip() for c in x[1:-1].split("|")])
            first = line.index("|", 1)  # the label
            places = (m.start() for m in re.finditer(r"\d(?![.,]?\d)", line))
            for place in (place for place in places if place > first):
                digit = (int(line[place]) + 1) % 10
                other = f"{line[:place]}{digit}{line[place + 1 :]}"
                (tmp_path / page).write_text(text.replace(line, other))
                assert len(check.faults(page, tmp_path)) == 1, other
                changed += 1
    assert changed > 20


def test_tables_without_a_run_and_numbers_without_a_value_are_found(tmp_path):
    (bare,) = check.faults("page.md", write(tmp_path, PAGE.replace("<!--", "<!-- no")))
    assert "does not say where it is from" in bare
    (alone,) = check.faults("page.md", write(tmp_path, PAGE.replace("note | none", "SSIM | 0.99")))
    assert "the run has no such value" in alone
    exempt = PAGE.replace("columns run.json .", "none, they are of the papers")
    assert check.faults("page.md", write(tmp_path, exempt.replace("55.82", "1"))) == []


def test_rows_may_be_runs(tmp_path):
    page = "<!-- numbers: rows run.json .; run.json . -->\n\n| | PSNR dB | entries used |\n"
    page += "| --- | ---: | ---: |\n| one | 55.8 | |\n| two | 55.82 | 10,511 |\n"
    assert check.faults("page.md", write(tmp_path, page)) == []
    (fault,) = check.faults("page.md", write(tmp_path, page.replace("55.8 ", "55.9 ")))
    assert fault == "page.md: one, PSNR dB: '55.9', but the run has [55.8162]"


@pytest.mark.parametrize("name", ["first_faces", "matching", "own_images", "tour"])
def test_notebooks_were_run_from_the_first_cell_to_the_last(name):
    """A change without outputs made anew, or cells run in another order, would show here."""
    notebook = json.loads((ROOT / f"docs/notebooks/{name}.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    install, *others = cells
    assert install["metadata"]["tags"] == ["skip-execution"] and not install["outputs"]
    assert [cell["execution_count"] for cell in others] == list(range(1, len(cells)))
    assert not any(x["output_type"] == "error" for cell in others for x in cell["outputs"])
