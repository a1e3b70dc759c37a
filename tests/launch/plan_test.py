"""The plan of a step on a TPU slice: what it reads in a program, advises and refuses."""

import importlib.util
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from launch import compiler, plan
from launch.hlo import MATCHING, Program
from pivq_jax.common.cost import cost_table
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh, map_over_batch
from pivq_jax.config import load_config
from pivq_jax.model.quantizer import match_latents
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.cost import Clock
from pivq_jax.training.objective import recombine_pairs
from tests.conftest import ROOT

LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason="needs jax[tpu]")

# A program of 8 devices, with the forms that the TPU's compiler gives communication.
HLO = (Path(__file__).parent / "program.hlo").read_text()


def program(scope: str = "jit(train)/jit(scan)/while") -> Program:
    return Program(HLO.replace("SCOPE", scope), devices=8)


def test_bytes_that_each_device_sends():
    assert program().moved_by_kind() == {
        # One at a time, and one of which parts run beside two fusions.
        "all-gather": pytest.approx(2 * 4 * 32 * 100 * 7 / 8),
        "reduce-scatter": pytest.approx(4 * 64 * 16 * 7 / 8),
        # Three turns of the loop in groups of four, and two arrays at once over all.
        "all-reduce": pytest.approx(3 * 2 * 2 * 1024 * 3 / 4 + 2 * 4 * (3 + 5) * 7 / 8),
        "all-to-all": pytest.approx(4 * 16 * 7 / 8),
        "collective-permute": pytest.approx(4 * 5),
    }


HANGS = """
import threading
from launch.plan import watched
watched("compiling", threading.Event().wait)
"""


@pytest.mark.parametrize("number, name", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_ends_a_compilation_in_one_line(number, name):
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stderr and process.stderr.read(10) == b"\rcompiling"  # the bar
    process.send_signal(number)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert error.decode().splitlines()[-1] == f"ended by {name}" and b"Traceback" not in error


def test_what_is_watched_gives_its_result_or_its_error(capsys):
    assert plan.watched("adding", lambda: 1 + 1) == 2
    assert "adding: 00:00" in capsys.readouterr().err

    def fails() -> None:
        raise compiler.DoesNotFit(2 * compiler.GIB, compiler.GIB)

    with pytest.raises(compiler.DoesNotFit):
        plan.watched("adding", fails)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Memory S(1) is that of the cores. A program of 4 KB arrays, x, and slices of 256 bytes.
TRAFFIC = """
%taking (p0: f32[16,64], p1: s32[]) -> f32[1,64] {
  %p0 = f32[16,64]{1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)S(6)} parameter(1)
  %same = f32[16,64]{1,0} bitcast(%p0)
  ROOT %row = f32[1,64]{1,0} dynamic-slice(%same, %p1, %zero), dynamic_slice_sizes={1,64}
}

%putting (p2: f32[16,64], p3: f32[1,64]) -> f32[16,64] {
  %p2 = f32[16,64]{1,0} parameter(0)
  %p3 = f32[1,64]{1,0} parameter(1)
  ROOT %put = f32[16,64]{1,0} dynamic-update-slice(%p2, %p3, %zero, %zero)
}

%meanwhile (p4: f32[2,64], p5: f32[16,64]) -> (f32[1,64], f32[2,64], f32[16,64]) {
  %p4 = f32[2,64]{1,0} parameter(0)
  %p5 = f32[16,64]{1,0} parameter(1)
  %gathered = f32[16,64]{1,0} all-gather(%p4), dimensions={0}
  ROOT %all = (f32[1,64]{1,0}, f32[2,64]{1,0}, f32[16,64]{1,0}) tuple(%p6, %p4, %gathered)
}

%body (s: (f32[16,64])) -> (f32[16,64]) {
  %s = (f32[16,64]{1,0}) parameter(0)
  %x.1 = f32[16,64]{1,0} get-tuple-element(%s), index=0
  ROOT %t = (f32[16,64]{1,0}) INSIDE
}

%condition (s: (f32[16,64])) -> pred[] {
  ROOT %more = pred[]{:S(6)} custom-call()
}

%no (a: f32[16,64]) -> f32[16,64] {
  ROOT %a = f32[16,64]{1,0} parameter(0)
}

ENTRY %main (x: f32[16,64], i: s32[]) -> f32[16,64] {
  %x = f32[16,64]{1,0:T(8,128)} parameter(0)
  %near = f32[16,64]{1,0:T(8,128)S(1)} fusion(%nothing), kind=kLoop, calls=%none
  %i = s32[]{:T(128)S(6)} parameter(1)
  %update = f32[1,64]{1,0:S(1)} parameter(2)
  ROOT %result = COUNTED
}
"""


@pytest.mark.parametrize(
    "counted, expected",
    [
        ("f32[16,64]{1,0} add(%x, %x)", 3 * 4096),
        ("f32[16,64]{1,0:T(8,128)S(1)} add(%x, %near)", 4096),
        ("f32[16,64]{1,0} bitcast(%x)", 0),
        ("f32[2,64]{1,0} slice(%x), slice={[0:2], [0:64]}", 2 * 512),
        ("(f32[16,64]{1,0:S(1)}, f32[16,64]{1,0}, u32[]{:S(2)}) copy-start(%x)", 4096),
        ("((f32[16,64]{1,0}), f32[1,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x)", 256),
        ("f32[1,64]{1,0:S(1)} slice-done(%start)", 0),
        ("(f32[16,64]{1,0}, f32[32,64]{1,0}) all-gather-start(%x)", 3 * 4096),
        ("f32[1,64]{1,0:S(1)} fusion(%x, %i), kind=kLoop, calls=%taking", 256),
        ("f32[1,64]{1,0:S(1)} fusion(%near, %i), kind=kLoop, calls=%taking", 0),
        ("f32[16,64]{1,0} fusion(%x, %update), kind=kLoop, calls=%putting", 256),
        (
            "(f32[1,64]{1,0}, f32[2,64]{1,0}, f32[16,64]{1,0}) fusion(%x, %x), calls=%meanwhile,"
            " output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}",
            256,
        ),
        ("(f32[16,64]) while(%init), condition=%condition, body=%body", 2 * 4096),
        (
            "(f32[16,64]) while(%init), condition=%condition, body=%body,"
            ' backend_config={"known_trip_count":{"n":"3"}}',
            3 * 2 * 4096,
        ),
        ("f32[16,64] conditional(%i, %x, %x), branch_computations={%no, %body, %no}", 2 * 4096),
    ],
)
def test_traffic_is_what_goes_to_and_from_main_memory(counted, expected):
    text = TRAFFIC.replace("COUNTED", counted).replace("INSIDE", "negate(%x.1)")
    assert Program(text, devices=1).traffic() == expected


def test_traffic_of_compiled_programs():
    def bytes_of(function, *shapes):
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return compiler.flops_and_traffic(jax.jit(function).lower(*arguments).compile())[1]

    assert bytes_of(jnp.add, (256, 256), (256, 256)) == 3 * 4 * 256**2
    assert bytes_of(jnp.matmul, (64, 256), (256, 32)) == 4 * (64 * 256 + 256 * 32 + 64 * 32)


@pytest.mark.parametrize(
    "scope",
    [
        "jit(train_step)/jvp(PIVQ)/quantizer/shard_map/matching/jit(solve)/while",
        "jit(train_step)/vmap(matching)/jit(solve)/cond/branch_0_fun/while",
        "jit(train_step)/shard_map/vmap(jit(_recombine))/jit(pair)/matching/jit(solve)/while",
    ],
)
def test_communication_in_a_loop_of_matching_is_found(scope):
    (found,) = program(scope).collectives_inside_matching()
    assert found.kind == "all-reduce"


def test_communication_elsewhere_is_not_taken_for_matching():
    assert program().collectives_inside_matching() == []
    assert program("jit(train)/rematching/jit(solve)/while").collectives_inside_matching() == []


def test_matching_names_itself_in_quantizing_and_in_recombination():
    codes, codebook = jnp.zeros((8, 6), jnp.int32), jnp.zeros((20, 4))
    pairs = codes, codes, jax.random.split(jax.random.key(0), 8)
    latents = jnp.zeros((8, 6, 4))
    for function, given in (
        (partial(match_latents, method="auction"), latents),
        (partial(recombine_pairs, space=CodeSpace(6, 20, method="shortest_path")), pairs),
    ):
        lowered = jax.jit(map_over_batch(function, make_mesh())).lower(given, codebook)
        instructions = [found for _, found, _ in Program(lowered.compile().as_text(), 1).walk()]
        assert any(x.opcode == "while" and MATCHING.search(x.scope) for x in instructions)


def make(**fields) -> compiler.Plan:
    values = {
        "topology": "v5e:4x4",
        "chips": 16,
        "state": 2e9,
        "memory": 8e9,
        "flops": 19.7e12,
        "traffic": 8.19e9,
        "moved": {"all-reduce": 1e9, "all-gather": 1e9},
        "seconds": 60.0,
    }
    return compiler.Plan(**(values | fields))


def test_the_roofline():
    assert make().times == pytest.approx({"compute": 0.1, "memory": 0.01, "links": 0.01})
    assert make().step_seconds == pytest.approx(0.11)
    assert make(traffic=819e9).step_seconds == pytest.approx(1.01)


def test_the_plan_is_told_as_an_estimate():
    text = plan.describe(make(), load_config("ffhq"), 12.3e12)
    assert "ffhq on v5e:4x4: 16 chips, mesh 16x1, batch of 256" in text
    assert "7.45 GiB of 16" in text and "19.70 TFLOP per step" in text
    assert "all-gather" in text and "953.7 MiB" in text
    assert "estimate" in text and "compute 100.0 ms, memory 10.0 ms, links 10.0 ms" in text


def test_a_plan_has_the_rows_of_a_run_and_a_range_of_hours():
    # 100,000 steps of 110 ms are 3.06 hours; a run is assumed to reach 35 % of that speed.
    config = load_config("ffhq")
    text = plan.describe(make(), config, 10e12)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    table = {name: cells for name, *cells in rows}
    assert table["cost"] == ["at best", "at 35% of that speed"]
    assert table["devices"] == ["16 v5e"] * 2 and table["steps"] == ["100,000"] * 2
    assert table["share of the peak, waiting included"] == ["46.1%", "16.2%"]
    assert table["milliseconds of a step"] == ["110.0", "314.3"]
    assert table["images per second, waiting included"] == ["2,327.3", "814.5"]
    assert table["in steps (goodput)"] == ["3:03:20 (100.0%)", "8:43:49 (95.0%)"]
    assert table["evaluations"] == ["-", "27:34 (5.0%)"]
    assert table["time"] == ["3:03:20", "9:11:23"]
    assert table["checkpoints"] == table["restarts"] == ["-", "-"]
    clock, mesh = Clock(60.0, steps=3, peak=1, flops=1), make_mesh(devices=jax.devices()[:1])
    run = cost_table({"run": clock.cost(3, 8, mesh)}).splitlines()
    assert [line.strip("| ").split(" | ")[0] for line in run] == [name for name, *_ in rows]


def test_what_would_help_a_step_that_does_not_fit():
    batch = {"train.batch_size": 256, "train.accumulation": 1}
    config = load_config("ffhq").with_fields({"model.remat": False, "mesh.fsdp": 1, **batch})
    advice = plan.knobs(config, chips=16, state=4 * compiler.GIB, excess=2 * compiler.GIB)
    names = [line.split(":")[0].split("=")[0] for line in advice]
    assert names[:4] == [
        "--config.mesh.fsdp",
        "--config.model.remat",
        "--config.train.accumulation",
        "--config.train.batch_size",
    ]
    assert advice[0].startswith("--config.mesh.fsdp=16:") and "3.8 GiB" in advice[0]
    assert advice[2].startswith("--config.train.accumulation=2:") and "8 images" in advice[2]
    config = config.with_fields({"model.remat": True, "mesh.fsdp": 16, "train.batch_size": 16})
    assert [line[:7] for line in plan.knobs(config, 16, compiler.GIB, compiler.GIB)] == ["a slice"]


def test_only_a_batch_that_the_chips_can_share_out_is_advised():
    batch = {"train.batch_size": 256, "train.accumulation": 1}
    # Half a batch must be shared out too.
    config = load_config("ffhq").with_fields(
        {"model.remat": True, "loss.recombination": 0.5, **batch}
    )

    def parts(chips: int) -> list[str]:
        sharded = config.with_fields({"mesh.fsdp": chips})
        advice = plan.knobs(sharded, chips, compiler.GIB, compiler.GIB)
        return [line.split(":")[0] for line in advice if "train." in line]

    assert parts(64) == ["--config.train.accumulation=2", "--config.train.batch_size=128"]
    assert parts(128) == []


def test_the_compilers_refusal_says_by_how_much(monkeypatch, tiny_config):
    class Lowered:
        def compile(self):
            raise RuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory"
                " space hbm. Used 21.42G of 15.75G hbm. Exceeded hbm capacity by 5.67G."
            )

    with pytest.raises(compiler.DoesNotFit, match=r"needs 21.4 GiB per chip of 15.8 GiB") as error:
        compiler.compile_step(Lowered())
    assert error.value.used - error.value.limit == pytest.approx(5.67 * compiler.GIB)
    monkeypatch.setattr(compiler, "lower", lambda config, devices: (Lowered(), 7.0))
    with pytest.raises(compiler.DoesNotFit) as error:
        compiler.make_plan(tiny_config, "v5e:4x4", [])
    assert error.value.state == 7.0


def test_another_failure_of_the_compiler_is_not_hidden():
    class Lowered:
        def compile(self):
            raise RuntimeError("INTERNAL: something else")

    with pytest.raises(RuntimeError, match="something else"):
        compiler.compile_step(Lowered())


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "tpu"])
def test_unknown_topologies_are_refused(topology):
    with pytest.raises(InputError, match=r"is unknown: give one of v4, v5e, v5p, v6e"):
        compiler.devices_of(topology)


def test_mistakes_in_flags_are_one_line(commands):
    for flag, word in (
        ("--config.model.widht=3", "widht"),
        ("--config.train.steps=x", "steps"),
        ("--config.seed=1", "give --config and --topology"),
    ):
        code = f"import runpy, sys\nsys.argv = {['plan', '--config=configs/ffhq.py', flag]}\n"
        code += "runpy.run_module('launch.plan', run_name='__main__', alter_sys=True)"
        done = commands.run(code=code)
        assert done.code == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ") and word in done.stderr


@pytest.mark.skipif(LIBTPU, reason="it is installed")
def test_a_missing_compiler_is_named():
    with pytest.raises(InputError, match=r"pip install 'jax\[tpu\]'"):
        compiler.devices_of("v5e:4x4")


# The TPU's compiler loads once a process, and its environment must be set before JAX's import.
BEGIN = """
import os
from launch.compiler import ENVIRONMENT
os.environ.update(ENVIRONMENT)
"""
COMPILE = """
from launch import compiler, plan
from pivq_jax.config import load_config

config = load_config("image_folder:smoke").with_fields({
    "model.width": 128, "mesh.fsdp": 2, "loss.recombination": 0.5,
    "optimizer.name": "adamw",  # of Muon's iterations four chips do a quarter each
})
assert len(compiler.devices_of("v4:2x2x2")) == 8  # chips, of two cores each
devices = compiler.devices_of("v5e:2x2")
found = compiler.make_plan(config, "v5e:2x2", devices)
print(plan.describe(found, config, 1e12))
ratio = plan.flops_against_one_chip(config, found, devices)
print(ratio, found.chips, found.moved.get("all-gather", 0), found.memory, found.state)
"""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command without the flags of the tests, some of which the TPU's compiler refuses."""
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@needs_libtpu
def test_a_small_step_compiled_for_a_slice():
    done = run([sys.executable, "-c", BEGIN + COMPILE])
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    ratio, chips, gathered, memory, state = map(float, done.stdout.splitlines()[-1].split())
    assert ratio == pytest.approx(1, abs=0.05) and chips == 4
    assert gathered > 0  # the parameters, for fsdp
    assert 0 < state < memory < compiler.CHIPS["v5e"].memory


@pytest.mark.slow
@needs_libtpu
def test_the_compiler_does_not_complain_about_this_machine():
    command = [sys.executable, "-m", "launch.plan", "--config=image_folder:smoke"]
    done = run([*command, "--topology=v5e:3x5"])
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: --topology=v5e:3x5 is not available (")


MESHES = """
from launch.compiler import devices_of
from pivq_jax.common.parallel import make_mesh

for topology in ("v6e:4x4", "v5p:4x4x4", "v4:2x2x4"):
    devices = devices_of(topology)
    for fsdp in (2**power for power in range(len(devices).bit_length())):
        assert make_mesh(fsdp, devices).shape["fsdp"] == fsdp
"""


@pytest.mark.slow
@needs_libtpu
def test_every_divisor_is_an_axis_of_every_kind_of_slice():
    done = run([sys.executable, "-c", BEGIN + MESHES])
    assert done.returncode == 0, done.stderr
