"""Worker processes of the preparation of data sets."""

from pivq_jax.data import worker


def test_workers_give_all_results_and_print_nothing(capfd):
    assert sorted(worker.run(str.split, ["a b", "c", "d"], workers=2)) == ["a", "b", "c", "d"]
    assert capfd.readouterr() == ("", "")
