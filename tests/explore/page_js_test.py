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
const until = async (ready) => {
  for (let n = 0; n < 3000 && !ready(); n++) await wait(20);
};
const settled = () => wait(20).then(() =>
  until(() => element("copy").getAttribute("aria-busy") === "false"));
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
    answer([text("name-a"), text("name-b")]);
    """
    assert use_page(body, tmp_path) == ["test image 2", "test image 3"]


def test_changes_are_those_of_the_image_of_the_present_state(tmp_path):
    body = """
    buttons(0)[0].click();
    buttons(0)[1].click(); // while the image is decoded
    const shown = () => element("entries-list").children.map((button) => [
      Number(button.querySelector(".code").textContent),
      button.querySelector(".amount")?.textContent,
    ]);
    await until(() => shown().length === 7 && shown().every(([, change]) => change));
    answer([text("title-entries"), Object.fromEntries(shown())]);
    """
    title, changes = use_page(body, tmp_path)
    assert title == "Replace code 1"
    assert changes == {
        str(code): f"changes {10 * abs(code - 1)}.0" for code in (0, 2, 3, 5, 6, 7, 8)
    }


def test_a_link_that_opens_slowly_does_not_undo_what_is_done_meanwhile(tmp_path):
    body = """
    const follow = (hash) => {
      location.hash = hash;
      page.dispatchEvent(new Event("hashchange"));
    };
    follow("#m=x&a=2.6&b=3.7&c=2.6");
    buttons(0)[0].click();
    await wait(200);
    const kept = [text("name-a"), column(0).dataset.code];
    follow("#m=x&a=2.6&b=3.7&c=2.6");
    await until(() => column(0).dataset.code === 2);
    answer([...kept, column(0).dataset.code]);
    """
    assert use_page(body, tmp_path) == ["test image 0", 1, 2]


def test_a_state_that_failed_is_told_and_only_a_later_one_is_decoded(tmp_path):
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
    await wait(100);
    const failed = [asked.length, element("result").getAttribute("aria-busy"), text("alert-text")];
    asked.length = 0;
    buttons(0)[0].click();
    buttons(1)[0].click(); // while the first is decoded, which fails
    await until(() => element("image").painted?.data[0] === 0 && asked.length > 1);
    answer([failed, asked]);
    """
    failed, asked = use_page(body, tmp_path)
    assert failed == [1, "false", "Something failed: lost"]
    assert asked == [[0, 4], [0, 5]]


def test_effects_are_shares_of_pixels_and_the_slider_moves_by_them(tmp_path):
    """Five pairs, the cheapest first; of the ten pixels of the image as many are white as the codes
    of B add up to. Pair 3 shows only with pair 4.
    """
    body = """
    const adds = [0, 2, 1, 0, 5];
    const pairs = { a: [0, 1, 2, 3, 4], b: [10, 11, 12, 13, 14], cost: [1, 2, 3, 4, 5] };
    const decoded = (codes) => {
      const image = new ImageData(10, 1);
      let white = codes.reduce((sum, code, slot) => sum + (code >= 10 ? adds[slot] : 0), 0);
      if (codes[3] === 13 && codes[4] === 14) white += 1;
      image.data.fill(255, 0, 4 * white);
      return image;
    };
    const sizes = [];
    const decode = async (sets) => (sizes.push(sets.length), sets.map(decoded));
    const effects = new Effects({ decode }, { batch: 2, kind: "matching" });
    const { signal } = new AbortController();
    const first = await effects.find({ pairs, codes: pairs.a }, signal);
    const later = await effects.find({ pairs, codes: [0, 1, 2, 3, 14] }, signal);
    const path = await effects.findPath(pairs, signal);
    adds.fill(0);
    const unseen = await effects.findPath({ a: [0, 1], b: [10, 11], cost: [2, 1] }, signal);
    const taken = await effects.find({ pairs, codes: [0, 1, 13, 3, 4] }, signal);
    answer([[...first], [...later], path, unseen, [...taken.keys()], Math.max(...sizes)]);
    """
    found = run_js("effects.js", "Effects", DOM + body, tmp_path)
    first, later, path, unseen, taken, most = found
    assert dict(first) == {0: 0, 1: 0.2, 2: 0.1, 3: 0, 4: 0.5}
    assert dict(later) == {0: 0, 1: 0.2, 2: 0.1, 3: 0.1, 4: 0.5}
    # Nothing is seen of slot 0: it goes with the next one.
    assert path == {"order": [4, 1, 2, 0, 3], "stops": [0, 1, 2, 3, 5]}
    assert unseen == {"order": [1, 0], "stops": [0, 1, 2]}
    assert taken == [0, 1, 2, 4]  # the code of B in slot 3 is there already
    assert most == 2


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


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path):
    """Codes that begin with 1 or 8 are decoded as grey level 10 or 80: 28 or 10 dB from black."""
    body = f"""
    const {{ BackendError }} = await import({(tmp_path / "page" / "backend.js").as_uri()!r});
    const give = async (encode) => {{
      backend.encode = encode;
      element("alert").hidden = true;
      element("file-a").click();
      element("file").files = [{{ name: "mine.png" }}];
      element("file").onchange();
      await wait(200);
      return [element("alert").hidden, text("alert-text"), text("name-a")];
    }};
    const like = (code) => async () => ({{ name: "mine.png", codes: [code, 5], image: grey(0) }});
    const refuse = async () => {{ throw new BackendError("It is no image."); }};
    answer([await give(refuse), await give(like(1)), await give(like(8))]);
    """
    refused, good, unlike = use_page(body, tmp_path)
    assert refused == [False, "mine.png: It is no image.", "test image 0"]
    assert good[0] is True and good[2] == unlike[2] == "mine.png"
    assert unlike[0] is False and unlike[1].startswith("mine.png is unlike the training images")


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
