"""What several processes do in a stage."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from pivq_jax.config.sections import EvaluateConfig
from pivq_jax.evaluation import stages
from pivq_jax.evaluation.features import Features


def test_processes_but_the_first_decode_with_all_devices_and_read_no_images(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    decoded = []
    monkeypatch.setattr(stages, "decode_batches", lambda model, codes: iter([codes]))
    session: Any = SimpleNamespace(  # without the images that the first process would read
        model=None,
        dataset=SimpleNamespace(test=range(9)),
        training_images=range(9),
        settings=EvaluateConfig(),
        test_codes=np.arange(18).reshape(9, 2),
        samples=SimpleNamespace(images=np.zeros((9, 4, 4, 3), np.uint8)),
        sample_features=Features(np.zeros((9, 5), np.float32), np.zeros((9, 20), np.float32)),
        extractor=SimpleNamespace(extract=lambda batches, total: decoded.extend(batches)),
    )
    assert stages.distribution(session) == stages.neighbours(session) == {}
    assert [len(batch) for batch in decoded] == [9]
