"""What one does on the page while it is busy: pivq_jax/explore/page/explorer.js and dialogs.js."""

from pathlib import Path
from typing import Any

from pivq_jax.data.toon_faces import FACTORS
from tests.explore.node import run_js

DOM = (Path(__file__).parent / "dom.js").read_text()
# A model of two codes; the grey level of an image is ten times its first code. Answers come one
# after another, as those of the server do.
BACKEND = """
const entry = { group: 0, value: "", right: 0, usual: 0, share: 0 };
const model = { id: "x", title: "", kind: "matching", imageSize: 1, numCodes: 2, codebookSize: 9,
  examples: 4, exampleName: "test image", trainingImages: 1, batch: 4, groups: ["g"],
  opening: [0, 1], entries: Array(9).fill(entry), factors: [], credit: "", prior: false,
  psnr: 20 };
let busy = Promise.resolve();
const later = (find) => (...given) => (busy = busy.then(() => wait(10)).then(() => find(...given)));
const grey = (level) => {
  const image = new ImageData(1);
  image.data.set([level, level, level, 255]);
  return image;
};
const picture = (index) => (
  { name: `test image ${index}`, codes: [index, 4 + index], image: grey(0) }
);
const backend = {
  model: async () => model,
  progress: async () => ({ text: "", fraction: 1 }),
  example: later(picture),
  examples: later(() => [grey(0)]),
  pair: later((a, b) => ({ a: [...a], b: [...b], cost: [1, 1] })),
  decode: later((sets) => sets.map(([code]) => grey(10 * code))),
  neighbours: later((code) => [...model.entries.keys()]
    .filter((other) => other !== code)
    .sort((one, other) => Math.abs(one - code) - Math.abs(other - code))),
  nearest: later(() => ({ picture: picture(3), difference: 0, searched: 1 })),
};
const entries = model.entries;
const faults = [];
process.on("unhandledRejection", (error) => faults.push(String(error)));
const copying = () => element("copy").getAttribute("aria-busy");
const until = async (ready) => {
  for (let n = 0; n < 3000 && !ready(); n++) await wait(20);
};
const settled = () => wait(20).then(() => until(() => copying() === "false"));
await explore(backend);
await settled();
const text = (id) => element(id).textContent;
const column = (slot) => element("slots").children.find(({ dataset }) => dataset.slot === slot);
const buttons = (slot) => column(slot).querySelectorAll("button"); // exchange, Replace
const choose = (side, index) => {
  element(`choose-${side}`).click();
  element("examples-number").valueAsNumber = index;
  element("examples-form").dispatchEvent(new Event("submit"));
};
const shown = () => element("entries-list").children.map((button) => [
  Number(button.querySelector(".code").textContent),
  button.querySelector(".amount")?.textContent.replace("changes ", ""),
]);
const follow = (hash) => {
  location.hash = hash;
  page.dispatchEvent(new Event("hashchange"));
};
const names = () => [text("name-a"), text("name-b")];
"""


def use_page(body: str, folder: Path) -> Any:
    """Opens the page with test images 0 and 1, codes 0, 4 and 1, 5, and runs a script on it."""
    return run_js("explorer.js", "explore", DOM + BACKEND + body, folder)


def test_two_images_chosen_at_once_are_both_taken(tmp_path):
    body = """
    choose("a", 2);
    await wait(5);
    choose("b", 3);
    await until(() => text("name-a") === "test image 2" && text("name-b") === "test image 3");
    answer(names());
    """
    assert use_page(body, tmp_path) == ["test image 2", "test image 3"]


def test_neighbours_that_come_late_stay_out_of_the_next_dialog(tmp_path):
    body = """
    buttons(0)[1].click();
    element("entries").close();
    buttons(1)[1].click();
    await until(() => shown().length === 7);
    answer([text("title-entries"), shown().map(([code]) => code)]);
    """
    title, codes = use_page(body, tmp_path)
    assert title == "Replace code 4"
    assert codes == [5, 3, 2, 6, 1, 7, 8]  # that of B, then the nearest, without those there


def test_changes_are_those_of_the_image_of_the_present_state(tmp_path):
    body = """
    buttons(0)[0].click();
    buttons(0)[1].click(); // while the image is decoded
    await until(() => shown().length === 7 && shown().every(([, change]) => change));
    const found = [text("title-entries"), Object.fromEntries(shown())];
    element("entries").close();
    buttons(0)[0].click();
    element("save-image").click();
    await until(() => saved.length);
    answer([...found, saved.map(({ data }) => data[0])]);
    """
    title, changes, levels = use_page(body, tmp_path)
    assert title == "Replace code 1"
    assert changes == {str(code): f"{10 * abs(code - 1)}.0" for code in (0, 2, 3, 5, 6, 7, 8)}
    assert levels == [0]  # of the code that came last, not of the one before


def test_another_state_closes_the_dialog_to_replace_a_code(tmp_path):
    body = """
    buttons(0)[1].click();
    await wait(200);
    const before = element("entries").open;
    follow("#m=x&a=2.6&b=3.7&c=2.6");
    await until(() => column(0).dataset.code === 2);
    answer([before, element("entries").open, column(0).dataset.code]);
    """
    assert use_page(body, tmp_path) == [True, False, 2]


def test_an_empty_fragment_is_no_link(tmp_path):
    body = """
    follow("");
    await wait(100);
    answer([text("alert-text"), names()]);
    """
    assert use_page(body, tmp_path) == ["", ["test image 0", "test image 1"]]


def test_a_browser_that_changes_no_more_links_is_put_up_with(tmp_path):
    body = """
    history.replaceState = () => { throw new Error("too often"); };
    element("name-copy").textContent = "";
    buttons(0)[0].click();
    await settled();
    answer([text("name-copy"), element("alert").hidden, faults]);
    """
    assert use_page(body, tmp_path) == ["test image 3", True, []]


def test_a_nearest_image_of_an_earlier_state_is_marked(tmp_path):
    body = """
    const found = [copying()];
    buttons(0)[0].click();
    await wait(5);
    found.push(copying());
    await settled();
    found.push(copying());
    const { nearest } = backend;
    backend.nearest = async () => { throw new Error("lost"); };
    console.error = () => {};
    buttons(1)[0].click();
    await until(() => text("alert-text") === "Something failed: lost");
    found.push(copying());
    backend.nearest = nearest;
    buttons(1)[0].click();
    await settled();
    found.push(copying());
    model.trainingImages = 0;
    buttons(1)[0].click();
    answer([...found, copying()]);
    """
    assert use_page(body, tmp_path) == ["false", "true", "false", "true", "false", "false"]


def test_a_state_that_came_while_another_failed_is_decoded(tmp_path):
    body = """
    const asked = [];
    backend.decode = async ([codes]) => {
      asked.push(codes);
      await wait(10);
      if (asked.length === 1) throw new Error("lost");
      return [grey(10 * codes[0])];
    };
    console.error = () => {};
    buttons(0)[0].click();
    buttons(1)[0].click();
    await until(() => element("image").painted?.data[0] === 10 && text("alert-text"));
    answer([asked, element("image").painted.data[0], text("alert-text")]);
    """
    found = [[[1, 4], [1, 5]], 10, "Something failed: lost"]
    assert use_page(body, tmp_path) == found


def test_a_state_that_failed_is_not_decoded_again(tmp_path):
    body = """
    let asked = 0;
    backend.decode = async () => {
      asked += 1;
      await wait(1);
      throw new Error("lost");
    };
    console.error = () => {};
    buttons(0)[0].click();
    await wait(100);
    answer([asked, element("result").getAttribute("aria-busy")]);
    """
    assert use_page(body, tmp_path) == [1, "false"]


# Five pairs in slots 0 to 4, the cheapest first; of the ten pixels of the image as many are white
# as the codes of B add up to. Pair 3 shows only with pair 4.
EFFECTS = """
const adds = [0, 2, 1, 0, 5];
const pairs = { a: [0, 1, 2, 3, 4], b: [10, 11, 12, 13, 14], cost: [1, 2, 3, 4, 5] };
const decoded = (codes) => {
  const image = new ImageData(10, 1);
  let white = codes.reduce((sum, code, slot) => sum + (code >= 10 ? adds[slot] : 0), 0);
  if (codes[3] === 13 && codes[4] === 14) white += 1;
  image.data.fill(255, 0, 4 * white);
  return image;
};
const model = { batch: 2, kind: "matching" };
const sizes = [];
const backend = { decode: async (sets) => (sizes.push(sets.length), sets.map(decoded)) };
const effects = new Effects(backend, model);
const { signal } = new AbortController();
"""


def test_effects_are_shares_of_pixels_and_the_slider_moves_by_them(tmp_path):
    body = """
    const first = await effects.find({ pairs, codes: pairs.a }, signal);
    const later = await effects.find({ pairs, codes: [0, 1, 2, 3, 14] }, signal);
    const { order, stops } = await effects.findPath(pairs, signal);
    adds.fill(0);
    const same = { a: [0, 1], b: [10, 11], cost: [2, 1] };
    const unseen = await effects.findPath(same, signal);
    const taken = await effects.find({ pairs, codes: [0, 1, 13, 3, 4] }, signal);
    answer([[...first], [...later], order, stops, [...taken.keys()], Math.max(...sizes), unseen]);
    """
    first, later, order, stops, taken, most, unseen = run_js(
        "effects.js", "Effects", DOM + EFFECTS + body, tmp_path
    )
    assert dict(first) == {0: 0, 1: 0.2, 2: 0.1, 3: 0, 4: 0.5}
    assert dict(later) == {0: 0, 1: 0.2, 2: 0.1, 3: 0.1, 4: 0.5}
    assert order == [4, 1, 2, 0, 3]
    assert stops == [0, 1, 2, 3, 5]  # nothing is seen of slot 0: it goes with the next one
    assert taken == [0, 1, 2, 4]  # the code of B in slot 3 is there already
    assert most == 2
    assert unseen == {"order": [1, 0], "stops": [0, 1, 2]}


def test_columns_are_in_the_order_of_effects_and_those_without_one_are_folded(tmp_path):
    body = """
    const slots = (place) => element(place).children.map(({ dataset }) => dataset.slot);
    const amounts = () => element("slots").querySelectorAll(".amount").map((e) => e.textContent);
    const entry = { group: 0, value: "", right: 0, usual: 0, share: 0 };
    const columns = new Slots({ groups: ["g"], entries: Array(15).fill(entry) }, {});
    const cost = [1, 2, 3, 4];
    const state = { pairs: { a: [0, 1, 2, 3], b: [10, 11, 12, 13], cost }, codes: [0, 1, 2, 3] };
    const show = (effects) => {
      columns.show(state);
      columns.measure(new Map(effects.map((effect, slot) => [slot, effect])));
      return [slots("slots"), slots("faint"), amounts(), element("title-faint").textContent];
    };
    columns.show(state);
    const before = slots("slots");
    const found = [before, show([0, 0.2, 0.001, 0.5]), show([0, 0, 0.3, 0.004])];
    state.pairs = { ...state.pairs };
    answer([...found, show([0, 0, 0, 0]), element("faint-part").hidden]);
    """
    before, first, later, none, hidden = run_js("slots.js", "Slots", DOM + body, tmp_path)
    assert before == [0, 1, 2, 3]
    nothing = "codes change nothing visible here"
    assert first == [[3, 1], [2, 0], ["50%", "20%"], f"2 {nothing}"]
    # What is shown stays where it is, and what has an effect now comes out.
    later_title = "1 code changes nothing visible here"
    assert later == [[3, 1, 2], [0], ["<1%", "no change", "30%"], later_title]
    assert none[:2] == [[0, 1, 2, 3], []] and hidden is True


def give_file(body: str, folder: Path) -> Any:
    """Gives a file for A, of which the backend returns what `encode` in a script says."""
    script = f"""
    const {{ BackendError }} = await import({(folder / "page" / "backend.js").as_uri()!r});
    {body}
    element("file-a").click();
    element("file").files = [{{ name: "mine.png" }}];
    element("file").onchange();
    await until(() => element("alert").hidden === false || text("name-a") === "mine.png");
    await wait(100);
    answer([element("alert").hidden, text("alert-text"), text("name-a")]);
    """
    return use_page("element('alert').hidden = true;" + script, folder)


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path):
    body = """
    backend.encode = async () => { throw new BackendError("It is no image."); };
    """
    assert give_file(body, tmp_path) == [False, "mine.png: It is no image.", "test image 0"]


def test_an_image_whose_codes_hold_little_of_it_is_said_to_be_unlike(tmp_path):
    """Codes that begin with 1 or 8 are decoded as grey level 10 or 80: 28 or 10 dB from black."""
    for code, hidden in ((1, True), (8, False)):
        body = f"""
        const mine = {{ name: "mine.png", codes: [{code}, 5], image: grey(0) }};
        backend.encode = async () => mine;
        """
        found = give_file(body, tmp_path)
        assert found[0] is hidden and found[2] == "mine.png"
        if not hidden:
            assert found[1].startswith("mine.png is unlike the training images")


def test_faces_so_far_bring_their_state_back(tmp_path):
    body = """
    const strip = element("strip");
    const count = () => strip.children.length;
    await until(() => count() === 1);
    buttons(0)[0].click();
    await until(() => count() === 2);
    element("undo").click();
    await settled();
    const undone = [count(), column(0).dataset.code];
    strip.children[0].click();
    await settled();
    const label = strip.children[0].getAttribute("aria-label");
    answer([...undone, count(), column(0).dataset.code, label]);
    """
    name = "Face 2, of test image 0 and test image 1"
    assert use_page(body, tmp_path) == [2, 0, 2, 1, name]


def test_values_have_names_for_people(tmp_path):
    body = "answer(given.factors.map((values) => values.map(nameOf)));"
    factors = [list(values) for values in FACTORS.values()]
    found = run_js("names.js", "nameOf", body, tmp_path, factors=factors)
    assert all(len({*names}) == len(names) for names in found)  # none is ambiguous
    names = {value for names in found for value in names}
    assert {"T-shirt", "long beard", "pink", "blond", "dark blue", "side combed"} <= names
    assert not any("#" in name or name != name.strip() for name in names)


def test_a_code_is_named_only_where_the_name_is_right(tmp_path):
    body = """
    const entry = (right) => ({ group: 0, value: "longBeard", right, usual: 0.1, share: 0.2 });
    const model = { groups: ["beard"], entries: [entry(0.9), entry(0.89)], trainingImages: 5 };
    const shown = [0, 1].map((code) => {
      const tells = chip(code, model).querySelector(".tells");
      return [tells.textContent, tells.classList.contains("unsure")];
    });
    answer([...shown, describe(1, model)]);
    """
    found = run_js("slots.js", "chip, describe", DOM + body, tmp_path)
    assert found[:2] == [["long beard", False], ["beard", True]]
    told = "Code 1: beard: long beard in 89% of images with it, 10% of all"
    assert found[2] == f"{told}; in 20.0% of training images."
