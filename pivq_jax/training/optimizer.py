"""The optimizers: Muon for matrices with AdamW for other parameters, or AdamW for all.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a
matrix by the nearest matrix whose singular values are all about one, computed by a few
Newton-Schulz iterations. An update then changes all directions of a layer equally, instead of the
few that dominate the gradient. All formulas are those of optax. Here the iterations, nearly all of
Muon's cost, run once for all matrices of the same shape and are distributed over the devices.
"""

import collections
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from pivq_jax.config.sections import OptimizerConfig

Params = Any

# Root mean square of the entries of an update before the learning rate, as for AdamW in practice
# (Liu et al. 2025, arXiv 2502.16982, section 2.2), so that one rate fits all shapes.
UPDATE_RMS = 0.2
ITERATIONS = 5  # Newton-Schulz iterations


def make_optimizer(
    config: OptimizerConfig, steps: int, mesh: Mesh | None = None
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the optimizer with clipping, linear warm-up and cosine decay to zero.

    'muon' is Muon for kernels and AdamW for other parameters (see `labels`), 'adamw' AdamW for all
    (Loshchilov and Hutter 2019). Weight decay, multiplied by the learning rate, applies to matrices
    except for the codebook, not to vectors (biases and norms). Also returns the learning rate of
    AdamW by step. With a mesh, Muon's iterations are distributed over it.
    """

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, config.warmup_steps, steps)

    rate, decay = schedule(config.learning_rate), config.weight_decay
    inner = adamw = optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=decay, mask=_decays)
    if config.name == "muon":
        muon = optax.chain(
            momentum_of_muon(config.momentum),
            orthogonalise(mesh),
            optax.add_decayed_weights(decay),
            optax.scale_by_learning_rate(schedule(config.muon_learning_rate)),
        )
        inner = optax.partition({"muon": muon, "adamw": adamw}, labels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), inner), rate


def make_discriminator_optimizer(
    learning_rate: float, clip_norm: float
) -> optax.GradientTransformation:
    """Returns Adam with betas (0.5, 0.9), usual for GANs, and clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate, b1=0.5, b2=0.9)
    )


def labels(params: Params) -> Params:
    """Returns the optimizer of each parameter, 'muon' or 'adamw', as a tree.

    Muon updates the kernels of dense layers and convolutions. The codebook and the learned queries
    and positions are tables of vectors, not linear maps, so AdamW updates them, as well as biases
    and norms. It also updates the many kernels of `LocalOutput`, for which Muon would take longer
    than for all others together.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "muon" if path[-1].key == "kernel" else "adamw", params
    )


def _decays(params: Params) -> Params:
    return jax.tree_util.tree_map_with_path(
        lambda path, value: value.ndim > 1 and path[-1].key != "codebook", params
    )


def momentum_of_muon(momentum: float) -> optax.GradientTransformation:
    """Returns optax's Muon without its iterations: momentum, with each matrix scaled to norm 1."""
    return scale_by_muon(
        beta=momentum, ns_steps=0, weight_dimension_numbers=partial(jax.tree.map, _axes)
    )


def _axes(kernel: jax.Array) -> MuonDimensionNumbers:
    """The axes of a kernel as a matrix: the last one is the output, all others are the input."""
    return MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1)


def orthogonalise(mesh: Mesh | None = None) -> optax.GradientTransformation:
    """Returns optax's Muon without its momentum: Newton-Schulz, batched over equal shapes.

    The transformation has no state. Kernels are treated as matrices [inputs, outputs]; those with
    more rows than columns are transposed, with which the iterations commute. With a mesh, each
    batch is split over its devices (`stack_sharding`), so that no work is repeated. Updates have a
    root mean square of about `UPDATE_RMS`.
    """
    muon = scale_by_muon(
        beta=0.0,
        nesterov=False,
        ns_steps=ITERATIONS,
        weight_dimension_numbers=partial(jax.tree.map, lambda _: MuonDimensionNumbers(1, 2)),
    )

    def iterate(stack: jax.Array) -> jax.Array:
        return muon.update(stack, muon.init(stack))[0]

    def update(updates: Params, state: optax.EmptyState, params: Params = None) -> Any:
        leaves, tree = jax.tree.flatten(updates)
        wide = [_wide(leaf) for leaf in leaves]
        groups = collections.defaultdict(list)  # indices of the leaves of each shape
        for number, matrix in enumerate(wide):
            groups[matrix.shape].append(number)
        for shape, numbers in groups.items():
            stack = jnp.stack([wide[number] for number in numbers])
            with jax.named_scope("muon"):  # benchmarks/versus_torch.py looks for this name
                stack = iterate(stack) if mesh is None else _shared_out(iterate, stack, mesh)
            stack *= UPDATE_RMS * math.sqrt(max(shape))
            for number, matrix in zip(numbers, stack, strict=True):
                kernel = leaves[number]
                is_upright = kernel.size > kernel.shape[-1] ** 2
                leaves[number] = (matrix.T if is_upright else matrix).reshape(kernel.shape)
        return jax.tree.unflatten(tree, leaves), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _wide(kernel: jax.Array) -> jax.Array:
    """A kernel [..., outputs] as a matrix with no more rows than columns."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _shared_out(
    iterate: Callable[[jax.Array], jax.Array], stack: jax.Array, mesh: Mesh
) -> jax.Array:
    """`iterate(stack)`, [count, rows, columns], distributed over the devices."""
    count, split = len(stack), stack_sharding(stack.shape, mesh)
    whole = NamedSharding(split.mesh, PartitionSpec())
    fill = -count % split.mesh.devices.shape[0]
    stack = jnp.pad(stack, ((0, fill), (0, 0), (0, 0)))
    # Replicated before and after the split; otherwise, each matrix is communicated separately.
    stack = jax.lax.with_sharding_constraint(stack, whole)
    stack = iterate(jax.lax.with_sharding_constraint(stack, split))
    return jax.lax.with_sharding_constraint(stack, whole)[:count]


def stack_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch of matrices, [count, rows, columns] with rows <= columns.

    It is split over all devices along `count`. If there are more devices than matrices, several
    share a matrix and split its columns, over which nearly all products sum.
    """
    count, _, columns = shape
    devices = mesh.devices.reshape(-1)
    sharing = max(
        n
        for n in range(1, len(devices) + 1)
        if len(devices) % n == 0 and columns % n == 0 and (n == 1 or len(devices) // n >= count)
    )
    over = Mesh(
        devices.reshape(-1, sharing), ("matrices", "columns"), axis_types=(AxisType.Auto,) * 2
    )
    return NamedSharding(over, PartitionSpec("matrices", None, "columns"))
