"""An engine is compiled as the tests that use it."""

import pytest


@pytest.fixture(autouse=True)
def compiled_as_the_engine(request: pytest.FixtureRequest) -> None:
    """Programs are found again only under the settings that they were compiled with."""
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine")
        request.getfixturevalue("fast_compilation")
