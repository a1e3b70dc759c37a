"""The jobs of `benchmarks.all`, and which benchmarks are not among them."""

from typing import NamedTuple


class Job(NamedTuple):
    """A program to run."""

    name: str
    seconds: tuple[int, int]  # expected, on a CPU and on an accelerator; 0: not run there
    command: str  # what follows `python -m`
    small: str = ""  # more options on a CPU
    needs: tuple[str, ...] = ()  # packages, as they are imported


# Why benchmarks are not among the jobs.
LEFT_OUT = {
    "need photographs, see docs/photographs.md": (
        "baselines",
        "components",
        "face_identity",
        "faces",
        "faces_peers",
        "pixels",
        "vq_vae",
    ),
    "train many models, which takes hours": ("ablation", "rate_distortion"),
    "needs a browser and no accelerator": ("explore_pictures",),
    "needs libtpu and no accelerator": ("matching_tpu",),
    "summarizes runs": ("summary",),
}
# The most telling first. {folder} is the one of all outputs, {model} the config to measure, and
# {run} a run of it, which the job of that name trains. Seconds on a CPU are those of one core in
# docs/trials.md, on accelerators they are guesses.
SMOKE = "pivq_jax.main --config={0}:smoke --workdir={{folder}}/runs/{0}_smoke"
NOISE = " --config.data.name=random --config.evaluate.images=50"
FACES = "--pretrained=toon_faces"
JOBS = (
    Job(
        "matching",
        (50, 150),
        "benchmarks.matching --quick --output={folder}/matching",
        needs=("scipy",),
    ),
    Job(
        "versus_torch",
        (100, 150),
        "benchmarks.versus_torch --config={model}",
        "--turns=1 --no-compile",
        ("scipy", "torch"),
    ),
    Job("toon_faces_smoke", (170, 60), SMOKE.format("toon_faces")),
    Job("resume", (110, 100), "benchmarks.resume"),
    Job(
        "toon_faces",
        (0, 270),
        "pivq_jax.main --config=toon_faces --workdir={folder}/runs/toon_faces",
    ),
    Job(
        "versus_torch_celeba",
        (0, 200),
        "benchmarks.versus_torch --config=celeba --batch-size=16 --turns=2",
        needs=("scipy", "torch"),
    ),
    Job(
        "training_step",
        (60, 90),
        "benchmarks.training_step --workdir={run} --methods=auto,greedy",
        "--repeats=5",
    ),
    Job("faces_smoke", (160, 60), SMOKE.format("faces") + NOISE),
    Job("ffhq_smoke", (350, 60), SMOKE.format("ffhq") + NOISE),
    Job("prdc", (5, 30), "benchmarks.prdc", "--images=1000 --features=512", ("prdc",)),
    Job(
        "input_pipeline",
        (30, 90),
        "benchmarks.input_pipeline --config={model}",
        "--workers=0,1 --sizes=64 --images=64 --seconds=1",
    ),
    Job("recombination", (20, 30), "benchmarks.recombination", "--sizes=16:512 --images=8"),
    Job(
        "exchange",
        (40, 60),
        "benchmarks.exchange --workdir {run} --output={folder}/exchange",
        "--seeds=1 --samples=50",
    ),
    Job("conflicts", (15, 20), "benchmarks.conflicts {run}", "--images=50"),
    Job("place_free", (60, 40), "benchmarks.place_free --workdir={run}", "--images=8"),
    Job(
        "completion",
        (60, 40),
        f"benchmarks.completion {FACES} --output={{folder}}/completion",
        "--images=20",
    ),
    Job("prior", (95, 60), f"benchmarks.prior {FACES} --output={{folder}}/prior", "--samples=50"),
    Job(
        "compression",
        (30, 60),
        f"benchmarks.compression {FACES} --only-ours --output={{folder}}/compression",
        "--images=100",
    ),
    Job("edits", (0, 40), f"benchmarks.edits {FACES} --output={{folder}}/edits"),
    Job(
        "explore_factors", (0, 40), f"benchmarks.explore_factors {FACES} --output={{folder}}/edits"
    ),
)
