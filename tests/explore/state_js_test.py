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
    history.go(-1);
    seen.push(history.present);
    note("hair");  // undoing ends it
    history.go(-1);
    seen.push(history.present, history.has(-1), history.has(1), history.has(3));
    answer(seen);
    """
    found = run_js("state.js", "History", body, tmp_path)
    begun = ["first", "first", "first", "spiky", "wink"]
    assert found == [*begun, "spiky", "spiky", "first", False, True, False]


def test_a_code_that_is_there_is_not_put_in_again(tmp_path):
    body = """
    try { answer(replace({ codes: [3, 5] }, 0, 5, "matching")); }
    catch (error) { answer(`${error.name}: ${error.message}`); }
    """
    said = "BackendError: Code 5 is in the image already: take it out there first."
    assert run_js("state.js", "replace", body, tmp_path) == said


def test_a_link_opens_the_same_codes_where_the_test_images_are_others(tmp_path):
    body = """
    const model = { id: "x", kind: "matching", numCodes: 2, codebookSize: 9, examples: 2 };
    const here = [[0, 4], [1, 7]];
    const backend = {
      example: async (index) => ({ name: `test image ${index}`, codes: here[index] }),
      decode: async ([codes]) => [`decoded ${codes}`],
      pair: async (a, b) => ({ a, b }),
    };
    const side = (example, codes) => ({ name: `test image ${example}`, codes, example });
    const open = async (link) => {
      const { a, b, pairs, codes } = await fromFragment(link, model, backend);
      return { a, b, pairs, codes };
    };
    const link = (b) => toFragment({ a: side(0, [0, 4]), b, codes: [1, 4] }, model);
    answer(await Promise.all([
      link(side(1, [1, 5])), link(side(5, [1, 5])), "m=x&a=e0&b=e1&c=1.4",
    ].map(open)));
    """
    moved, missing, old = run_js("state.js", "fromFragment, toFragment", body, tmp_path)
    original = {"name": "test image 0", "codes": [0, 4], "example": 0}
    decoded = {"codes": [1, 5], "image": "decoded 1,5"}
    for found, name in ((moved, "test image 1"), (missing, "test image 5")):
        assert found["a"] == original and found["b"] == {"name": name, **decoded}
        assert found["pairs"] == {"a": [0, 4], "b": [1, 5]} and found["codes"] == [1, 4]
    # Links once held no codes of test images.
    assert old["a"] == original and old["b"] == {
        "name": "test image 1",
        "codes": [1, 7],
        "example": 1,
    }


def test_links_that_do_not_fit_are_refused_with_a_reason(tmp_path):
    body = """
    const model = { id: "x", kind: "matching", numCodes: 2, codebookSize: 9, examples: 2 };
    const refused = async (link) => {
      try { await fromFragment(link, model, null); } catch (error) { return error.message; }
    };
    answer(await Promise.all(given.links.map(refused)));
    """
    damaged = ["m=x&a=1&b=1.2&c=1.2", "m=x&a=1.1&b=1.2&c=1.2", "m=x&a=1.9&b=1.2", "m=x&a=<b>"]
    links = ["m=other&a=e0&b=e1&c=1", "%%%", *damaged]
    found = run_js("state.js", "fromFragment", body, tmp_path, links=links)
    assert all("another model" in told for told in found[:2])
    assert all("damaged" in told for told in found[2:])
