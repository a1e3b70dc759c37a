"""Inference with trained models; `pivq_jax.load` and `pivq_jax.from_pretrained` open them.

Arrays of images are given to the methods of a model, and whole splits of data sets to functions.
"""

from pivq_jax.inference.folders import encoded_images, names_of_copies, write_decoded
from pivq_jax.inference.splits import (
    POOL_IMAGES,
    Decoded,
    Encoded,
    decode_batched,
    decode_batches,
    describe_psnr,
    encode_batches,
    encode_labelled,
    encode_split,
    images_of,
    labels_of,
    with_parents,
)
from pivq_jax.inference.trained_model import TrainedModel

__all__ = [
    "POOL_IMAGES",
    "Decoded",
    "Encoded",
    "TrainedModel",
    "decode_batched",
    "decode_batches",
    "describe_psnr",
    "encode_batches",
    "encode_labelled",
    "encode_split",
    "encoded_images",
    "images_of",
    "labels_of",
    "names_of_copies",
    "with_parents",
    "write_decoded",
]
