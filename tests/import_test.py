"""What an import pulls in."""

import json
import subprocess
import sys

import pivq_jax


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; import json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_matching_needs_neither_networks_nor_data():
    modules = modules_after("import pivq_jax.matching; pivq_jax.matching.match([[1.0]])")
    assert "pivq_jax.matching" in modules and "jax" in modules
    heavy = {"flax", "grain", "tensorflow_datasets", "tensorflow", "optax", "orbax", "ott", "PIL"}
    assert not heavy & {name.partition(".")[0] for name in modules}
    ours = {name for name in modules if name.startswith("pivq_jax.")}
    assert all(name.startswith("pivq_jax.matching") for name in ours), ours


def test_the_package_alone_imports_nothing():
    assert not {"jax", "flax", "numpy"} & modules_after("import pivq_jax")


def test_load_is_found_lazily_and_nothing_else():
    from pivq_jax.inference.opening import load

    assert pivq_jax.load is load
    assert not hasattr(pivq_jax, "train_everything")
