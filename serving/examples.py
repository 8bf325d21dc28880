"""Examples of the OpenAPI document: requests to try, and what every route answers to what."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from serving.problems import MEDIA_TYPE, TITLES

_FILE: Final = Path(__file__).with_name("examples.yaml")


def add_examples(document: dict[str, Any]) -> None:
    """Put the examples of ``examples.yaml`` into the OpenAPI `document`: values of parameters,
    bodies of requests, and an answer for each status that the document says. Raises `KeyError`
    where the file lacks one."""
    told = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            own = told["routes"][f"{method.upper()} {path}"]
            for parameter in operation.get("parameters", []):
                parameter["example"] = own["parameters"][parameter["name"]]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content["examples"] = {
                    name: {"summary": one["summary"], "value": one["request"]}
                    for name, one in own["examples"].items()
                }
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    content["examples"] = _answers(told, own, int(status), kind)


def _answers(
    told: dict[str, Any], own: dict[str, Any], status: int, kind: str
) -> dict[str, dict[str, Any]]:
    """The answers of a route with a status, by the name of the request that gets them; those that
    are problems, by what is wrong."""
    if kind != MEDIA_TYPE:
        return {
            name: {"summary": one["summary"], "value": one["answer"]}
            for name, one in own["examples"].items()
            if one.get("status", 200) == status
        }
    one = own.get("problems", {}).get(status) or told["problems"][status]
    problem = {"type": "about:blank", "title": TITLES[status], "status": status}
    said = {key: one[key] for key in ("detail", "errors") if key in one}
    asked = one.get("request") or one.get("parameters")
    description = {} if asked is None else {"description": f"Asked for: {json.dumps(asked)}"}
    return {"problem": {"summary": one["summary"], **description, "value": problem | said}}
