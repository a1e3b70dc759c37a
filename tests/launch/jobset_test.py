"""The JobSet manifest against its schema, and against what the program understands."""

import copy
import math
from pathlib import Path

import jsonschema
import pytest
import yaml

from pivq_jax.config import load_config
from pivq_jax.data.pipeline import SHARED_BATCHES, SHARED_MEMORY
from tests.conftest import ROOT

MANIFEST = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text())
SCHEMA = yaml.safe_load((Path(__file__).parent / "jobset_schema.yaml").read_text())


def job_of(manifest: dict) -> dict:
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def validate(manifest: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(manifest, SCHEMA, jsonschema.Draft202012Validator)


def test_the_manifest_is_valid():
    validate(MANIFEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(apiVersion="jobset.x-k8s.io/v1"),
        lambda m: m["spec"]["failurePolicy"].update(maxRestart=3),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].pop("name"),
        lambda m: job_of(m).update(parallelism="4"),
        lambda m: job_of(m).pop("template"),
        lambda m: job_of(m)["template"]["spec"].update(restartPolicy="Always"),
        lambda m: job_of(m)["template"]["spec"]["nodeSelector"].update(spot=True),
        lambda m: job_of(m)["template"]["spec"]["containers"][0].update(arguments=[]),
    ],
)
def test_a_wrong_manifest_is_refused(change):
    manifest = copy.deepcopy(MANIFEST)
    change(manifest)
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


def test_the_hosts_hold_the_topology():
    job = job_of(MANIFEST)
    pod = job["template"]["spec"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    each = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == chips / each
    assert job["completionMode"] == "Indexed"


def test_a_preemption_resumes_and_an_error_does_not_go_on_for_ever():
    job, policy = job_of(MANIFEST), MANIFEST["spec"]["failurePolicy"]
    on_condition, on_code = job["podFailurePolicy"]["rules"]
    assert on_condition["onPodConditions"][0]["type"] == "DisruptionTarget"
    # 143 is the exit code of a run that SIGTERM stopped: `pivq_jax.common.stopping.Interrupted`.
    assert on_code["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [143]}
    assert job["backoffLimit"] == 0 and 0 < policy["maxRestarts"] < 10
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_the_arguments_are_those_of_main():
    container = job_of(MANIFEST)["template"]["spec"]["containers"][0]
    names = [argument.split("=")[0].removeprefix("--") for argument in container["args"]]
    files = ("main.py", "commands/program.py", "config/loader.py")
    source = "".join((ROOT / "pivq_jax" / file).read_text() for file in files)
    for name in names:
        assert f'"{name.split(".")[0]}"' in source, name
    assert any(argument.startswith("--workdir=gs://") for argument in container["args"])


def test_the_data_workers_have_shared_memory():
    config = load_config("ffhq")
    pod = job_of(MANIFEST)["template"]["spec"]
    hosts, image = job_of(MANIFEST)["parallelism"], 3 * config.data.image_size**2
    needed = SHARED_BATCHES * config.data.workers * config.train.batch_size // hosts * image
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    assert mount["mountPath"] == SHARED_MEMORY and volume["emptyDir"]["medium"] == "Memory"
    assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 > needed > 64e6
