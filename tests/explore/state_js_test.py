"""Undo, in pivq_jax/explore/page/state.js."""

from tests.explore.node import run_js


def test_a_gesture_is_undone_at_once_and_begins_where_it_began(tmp_path):
    body = """
    const history = new History();
    const seen = [];
    const note = (gesture) => seen.push(history.before(gesture));
    history.push("first");
    note("hair");
    history.push("bun", "hair");
    note("hair");
    history.push("spiky", "hair");
    note("hair");
    note("eyes");
    history.push("wink", "eyes");
    note("hair");
    history.undo();
    seen.push(history.present);
    note("hair");  // undoing ends it
    history.undo();
    seen.push(history.present, history.canUndo);
    answer(seen);
    """
    found = run_js("state.js", "History", body, tmp_path)
    begun = ["first", "first", "first", "spiky", "wink"]
    assert found == [*begun, "spiky", "spiky", "first", False]


def test_a_code_that_is_there_is_not_put_in_again(tmp_path):
    body = """
    try { answer(replace({ codes: [3, 5] }, 0, 5, "matching")); }
    catch (error) { answer(`${error.name}: ${error.message}`); }
    """
    said = "BackendError: Code 5 is in the image already: take it out there first."
    assert run_js("state.js", "replace", body, tmp_path) == said
