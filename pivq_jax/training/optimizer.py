"""The optimizers: Muon for matrices with AdamW for other parameters, or AdamW for all.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a
matrix by the nearest matrix whose singular values are all about one, computed by a few
Newton-Schulz iterations. An update then changes all directions of a layer equally, instead of the
few that dominate the gradient. Results are those of optax. Here the iterations, nearly all of
Muon's cost, run once for all matrices of the same shape and are distributed over the devices; those
of high matrices run on the small Gram matrix (Zhang, Amsel, Chen and Dao 2026,
https://dao-lab.ai/blog/2026/gram-newton-schulz).
"""

import collections
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from pivq_jax.common.params import Params
from pivq_jax.config.sections import OptimizerConfig, step_at

# Root mean square of the entries of an update before the learning rate, as for AdamW in practice
# (Liu et al. 2025, arXiv 2502.16982, section 2.2), so that one rate fits all shapes.
UPDATE_RMS = 0.2
# Newton-Schulz: x becomes A x + B x (x' x) + C x (x' x)^2, five times (Jordan et al. 2024).
A, B, C = 3.4445, -4.7750, 2.0315
# For high matrices, the number of iterations on one Gram matrix, after which the next one is
# computed. A single one for all five would amplify its rounding errors where products have the
# precision of bfloat16, as on TPUs: singular values of up to 16 instead of 1.2.
ITERATIONS = (3, 2)
# Parameters of the encoder that are found, not trained.
COMPONENTS = ("mean", "basis", "deviations")


def make_optimizer(
    config: OptimizerConfig,
    steps: int,
    mesh: Mesh | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> optax.GradientTransformation:
    """Builds the optimizer.

    Weight decay (AdamW: Loshchilov and Hutter 2019) applies to all parameters of several axes but
    the codebook and principal components.
    """
    rate, decay = learning_rate_schedule(config, steps), config.weight_decay
    inner = adamw = optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=decay, mask=_weight_decay_mask)
    if config.name == "muon":
        peak = config.muon_learning_rate
        muon = optax.chain(
            # Optax's without its iterations: momentum, with each matrix scaled to norm 1.
            scale_by_muon(beta=config.momentum, ns_steps=0, weight_dimension_numbers=_kernel_axes),
            orthogonalize(mesh, dtype),
            optax.add_decayed_weights(decay),
            optax.scale_by_learning_rate(learning_rate_schedule(config, steps, peak)),
        )
        optimizers = {"muon": muon, "adamw": adamw, "fixed": optax.set_to_zero()}
        inner = optax.partition(optimizers, optimizer_labels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)


def learning_rate_schedule(
    config: OptimizerConfig, steps: int, peak: float | None = None
) -> optax.Schedule:
    """Returns the rate by step: warm-up to `peak`, by default AdamW's, and cosine decay to 0."""
    peak = config.learning_rate if peak is None else peak
    return optax.warmup_cosine_decay_schedule(0.0, peak, step_at(config.warmup, steps), steps)


def optimizer_labels(params: Params) -> Params:
    """Returns the optimizer of each parameter as a tree: 'muon' for kernels, 'adamw' for others.

    Principal components are 'fixed': their moments would take twice their memory.

    The codebook and the learned queries and positions are tables of vectors, not linear maps; for
    the many kernels of `LocalOutput`, Muon would take longer than for all others together.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        if path[0].key == "encoder" and path[-1].key in COMPONENTS:
            return "fixed"
        return "muon" if path[-1].key == "kernel" else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def _weight_decay_mask(params: Params) -> Params:
    kept = ("codebook", *COMPONENTS)
    return jax.tree_util.tree_map_with_path(
        lambda path, value: value.ndim > 1 and path[-1].key not in kept, params
    )


def _kernel_axes(params: Params) -> Params:
    """The axes of kernels as matrices: the last one is the output, all others are the input."""
    return jax.tree.map(
        lambda kernel: MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1), params
    )


def orthogonalize(
    mesh: Mesh | None = None, dtype: jax.typing.DTypeLike = jnp.float32
) -> optax.GradientTransformation:
    """Returns Muon without its momentum: Newton-Schulz, batched over equal shapes.

    Batches are split over the devices of a mesh, and stored and sent as `dtype`.
    """

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        leaves, tree = jax.tree.flatten(updates)
        matrices = [_tall_matrix(leaf) for leaf in leaves]
        groups = collections.defaultdict(list)  # indices of the leaves of each shape
        for number, matrix in enumerate(matrices):
            groups[matrix.shape].append(number)
        for numbers in groups.values():
            stack = jnp.stack([matrices[number].astype(dtype) for number in numbers])
            with jax.named_scope("muon"):  # for profiles
                stack = (
                    newton_schulz(stack) if mesh is None else _newton_schulz_sharded(stack, mesh)
                )
            for number, matrix in zip(numbers, stack, strict=True):
                kernel = leaves[number]
                is_wide = kernel.size < kernel.shape[-1] ** 2
                matrix = (matrix.T if is_wide else matrix).astype(kernel.dtype)
                leaves[number] = matrix.reshape(kernel.shape)
        return jax.tree.unflatten(tree, leaves), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _tall_matrix(kernel: jax.Array) -> jax.Array:
    """Reshapes a kernel [..., outputs] to a matrix with no fewer rows than columns.

    It is transposed if need be, with which the iterations commute.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def newton_schulz(stack: jax.Array, sharing: int = 1) -> jax.Array:
    """Returns updates [count, rows, columns] of momenta of that shape, rows >= columns.

    Iterations on one Gram matrix cost two thirds for matrices four times as high as wide, and save
    little or nothing below twice the height, or when a device has fewer of the rows, as `sharing`
    devices split only products with x.
    """
    x = stack.astype(jnp.float32)
    # The iterations need norms of at most about 1. `scale_by_muon` has divided by them already, as
    # it does even without iterations; with this, the function is right for other matrices, too.
    x /= jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-8
    _, rows, columns = x.shape
    is_high = rows >= 2 * columns * sharing
    for iterations in ITERATIONS if is_high else (1,) * sum(ITERATIONS):
        gram = x.mT @ x
        factors = factor = _factor(gram)
        for _ in range(iterations - 1):
            gram = factor @ gram @ factor
            factor = _factor(gram)
            factors = factor @ factors
        x = x @ factors
    return (UPDATE_RMS * math.sqrt(rows) * x).astype(stack.dtype)


def _factor(gram: jax.Array) -> jax.Array:
    return A * jnp.eye(gram.shape[-1]) + B * gram + C * gram @ gram


def _newton_schulz_sharded(stack: jax.Array, mesh: Mesh) -> jax.Array:
    """`newton_schulz(stack)`, [count, rows, columns], distributed over the devices."""
    count, split = len(stack), stack_sharding(stack.shape, mesh)
    whole = NamedSharding(split.mesh, PartitionSpec())
    batches, sharing = split.mesh.devices.shape
    fill = -count % batches
    stack = jnp.pad(stack, ((0, fill), (0, 0), (0, 0)))
    # Replicated before and after the split; otherwise, each matrix is communicated separately.
    stack = jax.lax.with_sharding_constraint(stack, whole)
    stack = newton_schulz(jax.lax.with_sharding_constraint(stack, split), sharing)
    stack = jax.lax.with_sharding_constraint(stack, split)
    return jax.lax.with_sharding_constraint(stack, whole)[:count]


def stack_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch of matrices, [count, rows, columns] with rows >= columns.

    It is split along `count`. If there are more devices than matrices, several share a matrix and
    split its rows, over which nearly all products sum.
    """
    count, rows, _ = shape
    devices = mesh.devices.reshape(-1)
    sharing = max(
        n
        for n in range(1, len(devices) + 1)
        if len(devices) % n == 0 and rows % n == 0 and (n == 1 or len(devices) // n >= count)
    )
    over = Mesh(devices.reshape(-1, sharing), ("matrices", "rows"), axis_types=(AxisType.Auto,) * 2)
    return NamedSharding(over, PartitionSpec("matrices", "rows"))
