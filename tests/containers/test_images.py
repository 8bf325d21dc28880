"""What the images are made of."""

import json

import pytest

from tests.containers.engine import EngineError
from tests.containers.stack import VERSION, Containers

MOST_BYTES = {"service": 1.2e9, "airflow": 2.0e9}
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, serving
for module in pkgutil.walk_packages(serving.__path__, "serving."):
    importlib.import_module(module.name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("target", MOST_BYTES)
def test_an_image_is_lean(images: Containers, target: str):
    size = images.engine.images()[f"recsys-{target}:{VERSION}"]["size"]
    print(f"{target}: {size / 1e9:.2f} GB")
    assert size <= MOST_BYTES[target]


def test_the_service_has_neither_airflow_nor_torch(images: Containers):
    def python(code: str) -> str:
        image = f"recsys-service:{VERSION}"
        return images.engine.docker("run", "--rm", "--read-only", image, "python", "-c", code)

    imported = set(json.loads(python(IMPORT_EVERYTHING)))
    assert {"fastapi", "numpy", "serving", "recsys"} <= imported
    for name in ("airflow", "torch", "sqlalchemy", "sklearn"):
        with pytest.raises(EngineError, match=f"No module named '{name}'"):
            python(f"import {name}")
