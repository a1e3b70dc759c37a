"""Labelled factors: what the codes of an image say of them, and edits that change one of them."""

from typing import NamedTuple

import jax
import numpy as np

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.sampling import CodeSpace, FactorTable, Labels


class Factors(NamedTuple):
    """What training images tell of the factors that they are labelled with.

    Attributes:
        space: the space of the codes, of sets or multisets.
        codebook: float32 [K, D].
        labels: the labels of the images, of A factors.
        table: how often they have each value.
        lift: float32 [K, K], the log lift of their codes.
    """

    space: CodeSpace
    codebook: jax.Array
    labels: Labels
    table: FactorTable
    lift: jax.Array

    def read(self, codes: np.ndarray) -> np.ndarray:
        """Reads the likeliest value of each factor, int64 [A], from codes, int [N]."""
        return np.asarray(sampling.read_factors(codes[None], self.table))[0].argmax(-1)

    def edit(self, codes: np.ndarray, factor: int, value: int) -> np.ndarray:
        """Gives a factor another value, both by index, in codes in any order; see `sampling.edit`.

        Entry n of the result, int32 [N], is that of `codes`, or what replaces it. Codes taken out
        and codes put in are paired as by `sampling.pair_codes`.
        """
        factors = self.labels.factors
        if not 0 <= factor < len(factors):
            raise InputError(f"factor {factor}: factors are 0 to {len(factors) - 1}")
        name, values = list(factors.items())[factor]
        if not 0 <= value < len(values):
            raise InputError(f"value {value}: values of {name} are 0 to {len(values) - 1}")
        wanted = np.full((1, len(factors)), -1, np.int32)
        wanted[0, factor] = value
        where = self.space, self.codebook
        new = sampling.edit(*where, codes[None], wanted, self.table, self.lift)[0]
        _, partners, _ = sampling.pair_codes(*where, codes, new)
        replaced = np.empty(len(codes), np.int32)
        replaced[np.argsort(codes, kind="stable")] = partners  # those of the sorted codes
        return replaced
