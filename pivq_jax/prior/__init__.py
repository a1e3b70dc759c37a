"""The prior over sets of codes: its training, samples of it and its section of the report.

`python -m pivq_jax.prior` does all of that. Its network, and drawing from it, are in
`pivq_jax.sampling`; a trained one is the `prior` of a `pivq_jax.inference.TrainedModel`. See
docs/prior.md.
"""

__all__: list[str] = []
