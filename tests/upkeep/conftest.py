import pytest


@pytest.fixture(autouse=True)
def _nobody_serves(monkeypatch, free_port):
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{free_port}")
