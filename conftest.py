"""What holds for tests and for the docstrings' examples alike."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_inherited_state(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Nothing touches the state root of whoever runs it: an example gets one of its own."""
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("example")))
