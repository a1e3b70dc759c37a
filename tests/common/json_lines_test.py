"""Logs are read back without their damaged lines, and grow again after an outage."""

import pytest

from pivq_jax.common import json_lines
from pivq_jax.common.json_lines import JsonLines, read_lines
from tests.conftest import full_disk


def test_damaged_lines_are_left_out_wherever_they_are(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = ['{"step": 0, "loss": 3}', '{"step": 5, "lo', "", "[]", "\0\0", '{"step": 10}']
    file.write_text("\n".join(lines) + '\n{"step": 15')
    assert read_lines(file) == [{"step": 0, "loss": 3}, {"step": 10}]
    assert read_lines(file, 5) == [{"step": 0, "loss": 3}]
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "value", ['"12"', "null", "[1]", "{}", "true", "1e999", "NaN", "-Infinity", "1" + 400 * "0"]
)
@pytest.mark.parametrize("name", ["step", "seconds"])
def test_a_line_with_a_value_of_another_kind_is_left_out_and_mentioned(
    tmp_path, caplog, name, value
):
    file = tmp_path / "metrics.jsonl"
    damaged = {"step": "5", "seconds": "1.5"} | {name: value}
    damaged = ", ".join(f'"{key}": {text}' for key, text in damaged.items())
    file.write_text(f'{{"step": 1, "seconds": 2, "rfid": NaN}}\n{{{damaged}}}\n')
    for _ in range(2):
        (line,) = read_lines(file)
        assert line["step"] == 1 and line["seconds"] == 2
    assert [record.message for record in caplog.records] == [f"{file}: 1 damaged line(s) left out"]
    file.write_text('{"step": 1, "loss": "low"}\n')
    assert read_lines(file) == []


def test_a_line_that_a_bucket_refuses_is_written_with_the_next_one(bucket, monkeypatch, capsys):
    def refuse(path, content):
        raise RuntimeError("503 try again")

    lines = JsonLines(bucket / "log.jsonl", 0)
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "write_bytes", refuse)
        lines.append({"step": 1})
    assert capsys.readouterr().err == (
        "gs://bucket/run/log.jsonl is not written, and the run goes on: 503 try again\n"
    )
    monkeypatch.setattr(json_lines, "UPLOADED_EVERY", 0.0)
    lines.append({"step": 2})
    assert read_lines(bucket / "log.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_bucket_gets_lines_once_a_minute_and_when_flushed(bucket, monkeypatch):
    lines, file = JsonLines(bucket / "log.jsonl", 0), bucket / "log.jsonl"
    lines.append({"step": 1})
    lines.append({"step": 2})
    assert read_lines(file) == [{"step": 1}]
    lines.flush()
    assert read_lines(file) == [{"step": 1}, {"step": 2}]
    monkeypatch.setattr(type(bucket), "write_bytes", None)
    lines.flush()  # nothing waits


def test_a_line_that_a_disk_refuses_ends_the_run(tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*log\.jsonl"):
        JsonLines(tmp_path / "log.jsonl", 1).append({"step": 2})
