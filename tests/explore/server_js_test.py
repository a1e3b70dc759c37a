"""What the page does with answers of its server: pivq_jax/explore/page/server.js."""

from tests.explore.node import run_js


def test_a_reload_after_another_model_is_served_opens_that_one_and_no_link(tmp_path):
    body = """
    globalThis.location = new URL("http://localhost:80/#m=before&c=1");
    globalThis.history = { replaceState: (state, title, url) => (location.hash = url.slice(1)) };
    const refused = new Response('{"error": "reload the page"}', { status: 409 });
    const answers = [new Response('{"id": "before"}'), refused];
    globalThis.fetch = async () => answers.shift();
    const backend = new ServerBackend();
    await backend.model();
    try {
      await backend.neighbours(3);
    } catch (error) {
      answer([error.message, location.pathname + location.hash]);
    }
    """
    found = run_js("server.js", "ServerBackend", body, tmp_path)
    assert found == ["Reload the page.", "/"]


def test_large_files_and_a_server_that_is_gone_are_told(tmp_path):
    body = """
    const backend = new ServerBackend();
    globalThis.fetch = async () => new Response('{"id": "x", "mostBytes": 2097152}');
    await backend.model();
    const tell = async (work) => { try { await work(); } catch (error) { return error.message; } };
    const large = () => backend.encode(new Blob([new Uint8Array(2097153)]), "large.png");
    const told = [await tell(large)];
    globalThis.fetch = async () => { throw new TypeError("failed to fetch"); };
    answer([...told, await tell(() => backend.neighbours(3))]);
    """
    large, gone = run_js("server.js", "ServerBackend", body, tmp_path)
    assert large == "The file has more than 2 MB: choose a smaller one."
    assert gone == "The server does not answer: is it still running?"
