"""Logs are read back without their damaged lines."""

from pivq_jax.training.json_lines import read_lines


def test_damaged_lines_are_left_out_wherever_they_are(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = ['{"step": 0, "loss": 3}', '{"step": 5, "lo', "", "[]", "\0\0", '{"step": 10}']
    file.write_text("\n".join(lines) + '\n{"step": 15')
    assert read_lines(file) == [{"step": 0, "loss": 3}, {"step": 10}]
    assert read_lines(file, 5) == [{"step": 0, "loss": 3}]
    assert read_lines(tmp_path / "none.jsonl") == []
