"""Edits of labelled factors in codes whose places are kept."""

import numpy as np

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.inference import TrainedModel


def edit_places(model: TrainedModel, codes: np.ndarray, factor: int, value: int) -> np.ndarray:
    """Gives a factor another value, both by index; see `TrainedModel.edit`.

    Entry n of the result, int32 [N], is that of `codes`, int [N] in any order, or what replaces it.
    Codes taken out and codes put in are paired as by `sampling.pair_codes`.
    """
    assert model.labels
    factors = model.labels.factors
    if not 0 <= factor < len(factors):
        raise InputError(f"factor {factor}: factors are 0 to {len(factors) - 1}")
    name, values = list(factors.items())[factor]
    if not 0 <= value < len(values):
        raise InputError(f"value {value}: values of {name} are 0 to {len(values) - 1}")
    new = model.edit(codes[None], **{name: values[value]})[0]
    _, partners, _ = sampling.pair_codes(model.space, model.codebook, codes, new)
    replaced = np.empty(len(codes), np.int32)
    replaced[np.argsort(codes, kind="stable")] = partners  # those of the sorted codes
    return replaced
