"""Configuration files as typed objects, read once by whoever starts something and passed on.

``<root>/config/local/FILE``, if there is that folder, is laid over ``<root>/config/FILE`` key by
key, that over the repository's ``config/FILE``, and all over the defaults of a `ConfigModel`.
Sections are merged, any other value (a list too) replaces the one below it, and a section that is
left empty changes nothing."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, reduce
from itertools import product
from operator import getitem
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Final, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from recsys.errors import InputError
from recsys.settings import REPOSITORY, Settings

logger = logging.getLogger(__name__)

# What a person writes is far below these; what is above them is an accident or an attack.
_MAX_BYTES: Final = 256_000
_MAX_DEPTH: Final = 20
_MAX_NUMBER: Final = 10**15

# Names of settings end in their unit; what is longer than a century leads out of the calendar.
_CENTURY: Final = timedelta(days=36_500)
_UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds")
_NOTHING: Final = object()
_LOGIN_IN_URL: Final = re.compile(r"(?<=//)[^/@\s]*@")

# Keys of earlier releases that are constants now. Files with them are still read.
RETIRED: Final[Mapping[str, str]] = dict(
    line.split(": ")
    for line in Path(__file__).with_name("retired_keys.txt").read_text("utf-8").splitlines()
)


# By the type of what pydantic found.
_EXPECTED: Final[Mapping[str, str]] = {
    "missing": "is missing",
    **dict.fromkeys(("string_type", "string_unicode"), "expected text"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
        "expected a whole number",
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "expected a list, such as [a, b]"),
    **dict.fromkeys(("dict_type", "model_type", "mapping_type"), "expected keys with values"),
    **dict.fromkeys(("literal_error", "enum"), "expected one of {expected}"),
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "string_pattern_mismatch": "expected text that fits {pattern}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "too_short": "expected at least {min_length} entries",
    "too_long": "expected at most {max_length} entries",
    **dict.fromkeys(
        ("timezone_aware", "datetime_type", "datetime_parsing", "datetime_from_date_parsing"),
        "expected a time with its zone, such as 2026-12-01T00:00+07:00",
    ),
    **dict.fromkeys(
        ("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"),
        "expected a day, such as 2026-12-01",
    ),
    "date_past": "expected a day in the past",
    "invalid_key": "expected text as the key",
}


class ConfigError(InputError):
    """A configuration file is missing or holds a bad value; the text names file and key."""


class ConfigModel(BaseModel):
    """Base of every typed configuration section: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    FILE: ClassVar[str] = ""
    """The file below ``config/`` that the model stands for; empty: it is a section of one."""

    NOTHING: ClassVar[str] = ""
    """How a file says that there is nothing to say; empty: by being empty. A file that is read
    again while it is written looks empty, and must not count as that."""

    ENTRIES: ClassVar[Mapping[str, Any]] = {}
    """What mappings with free names hold, by default, below what is given."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        given = {k: v for k, v in content.items() if v is not None or not cls._is_section(k)}
        return merged(cls.ENTRIES, given)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_and_no_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError("expected a number, not yes or no")
        return value

    @field_validator("*")
    @classmethod
    def _reaches_no_further_than_dates_do(cls, value: Any, info: ValidationInfo) -> Any:
        unit = (info.field_name or "").rpartition("_")[2]
        if unit in _UNITS and isinstance(value, int | float):
            most = _CENTURY // timedelta(**{unit: 1})
            if abs(value) > most:
                raise ValueError(f"expected at most a hundred years, which are {most}")
        return value

    @classmethod
    def _is_section(cls, key: Any) -> bool:
        known = cls.model_fields.get(key) if isinstance(key, str) else None
        default = known and known.get_default(call_default_factory=True, validated_data={})
        return isinstance(default, BaseModel | dict)


ConfigT = TypeVar("ConfigT", bound=ConfigModel)


@dataclass(frozen=True)
class Document:
    """What the files of one name say together, the state root's own first."""

    layers: tuple[tuple[Path, Mapping[str, Any]], ...]

    @property
    def content(self) -> dict[str, Any]:
        """All layers as one mapping."""
        return reduce(merged, (content for _, content in reversed(self.layers)), {})

    def path(self, key: Iterable[int | str] = ()) -> Path:
        """The file that says what holds for `key` (its parts, from the outermost section)."""
        parts = tuple(key)
        sections = (parts[:length] for length in range(len(parts), -1, -1))
        return next(
            path
            for section, (path, content) in product(sections, self.layers)
            if _value_at(content, section) is not _NOTHING
        )

    def validate(
        self, model: type[ConfigT], content: Any = None, *, at: tuple[str, ...] = ()
    ) -> ConfigT:
        """The document as a `model`, or `content` that was made of what stands at the key `at`.
        Raises `ConfigError` with one line for each bad key."""
        try:
            return model.model_validate(self.content if content is None and not at else content)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            sentences = "\n".join(self._sentence(model, at, one) for one in problems)
            raise ConfigError(sentences) from None

    def _sentence(
        self, model: type[ConfigModel], at: tuple[str, ...], problem: Mapping[str, Any]
    ) -> str:
        inner = problem["loc"]
        key = (*at, *inner)
        name = ".".join(str(part) for part in key)
        where = f"{self.path(key)}: {name[:200] or '(file)'}{self._owner(key)}"
        if problem["type"] == "extra_forbidden":
            # The value under a mistyped name can be a secret.
            siblings = _type_at(model, inner[:-1])
            known = ", ".join(siblings.model_fields) if _is_model(siblings) else "nothing"
            return f"{where}: there is no such key: expected one of {known}"
        shown = _shown(_value_at(self.content, key), _type_at(model, inner))
        said = f"{where}: {said_of(problem)}"
        return said if shown is None else f"{said} (got {shown})"

    def _owner(self, key: tuple[int | str, ...]) -> str:
        """`` of NAME`` for a key in an entry of a list that has a name: nobody counts entries."""
        entries = [key[: count + 1] for count, part in enumerate(key) if isinstance(part, int)]
        name = _value_at(self.content, (*entries[0], "name")) if entries else None
        return f" of {_brief(name)}" if isinstance(name, str) and key[-1] != "name" else ""


def load_config(settings: Settings, model: type[ConfigT]) -> ConfigT:
    """`model` as the state root and the repository configure it. Raises `ConfigError` if a file is
    unreadable, or a key is unknown or has a bad value: one line each, with file and key."""
    document = read_document(settings, model.FILE)
    for path, content in document.layers if model.NOTHING else ():
        if path.exists() and all(value is None for value in content.values()):
            said = f"write `{model.NOTHING}` if that is meant"
            raise ConfigError(f"{path}: says nothing, like a file that was cut short: {said}")
    return document.validate(model)


def read_document(settings: Settings, name: str) -> Document:
    """All files of `name`, as far as they exist. Raises `ConfigError` when one is unreadable."""
    paths = [folder / name for folder in settings.config_folders]
    found = tuple((path, content) for path in paths if (content := _read(path)) is not None)
    for path, content in found:
        _drop_retired(path, name, content)
    return Document(found or ((paths[0], {}),))


def unknown_files(settings: Settings) -> list[str]:
    """A sentence for each file of the state root's settings that nobody reads."""
    kinds = (".yaml", ".yml", ".json")
    shipped = {path.name for path in (REPOSITORY / "config").iterdir() if path.suffix in kinds}
    return [
        f"{path}: no settings have this name: expected one of {', '.join(sorted(shipped))}"
        for folder in settings.config_folders[:-1]
        for path in sorted(folder.glob("*.*"))
        if path.suffix in kinds and path.name not in shipped
    ]


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in one YAML or JSON file. Raises `ConfigError` naming the file otherwise."""
    content = _read(path)
    if content is None:
        raise ConfigError(f"{path}: the file does not exist")
    return content


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ConfigError(f"{path}: expected at most {_MAX_BYTES} bytes")
        text = raw.decode("utf-8-sig")
        content = parse_json(text) if path.suffix == ".json" else _Loader(text).get_single_data()
        _check_extent(content)
    except FileNotFoundError:
        return None
    except yaml.MarkedYAMLError as error:
        # Its own text quotes the line, which can be that of a password.
        mark = error.problem_mark
        fault = error.problem or error.context
        if mark is None:
            raise ConfigError(f"{path}: {fault}") from None
        raise ConfigError(f"{path}: line {mark.line + 1}: {fault}") from None
    except RecursionError:
        raise ConfigError(f"{path}: expected at most {_MAX_DEPTH} levels of nesting") from None
    except ConfigError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return content or {}


def merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `below`, key by key; an empty section of `over` changes nothing.

    >>> merged({"tuning": {"seconds": 30, "trials": 25}}, {"tuning": {"trials": 3}})
    {'tuning': {'seconds': 30, 'trials': 3}}
    """
    result = dict(below)
    for key, value in over.items():
        current = result.get(key)
        if not isinstance(current, Mapping):
            result[key] = value
        elif value is not None:
            result[key] = merged(current, value) if isinstance(value, Mapping) else value
    return result


def _drop_retired(path: Path, name: str, content: dict[str, Any]) -> None:
    """Take the keys of earlier releases out of `content`, and say so."""
    for key in RETIRED.get(name, "").split():
        parts = key.split(".")
        if _value_at(content, parts) is not _NOTHING:
            _warn_of_retired(path, key)
            del _value_at(content, parts[:-1])[parts[-1]]
        while len(parts) > 1 and _value_at(content, parts := parts[:-1]) == {}:
            del _value_at(content, parts[:-1])[parts[-1]]


@lru_cache(maxsize=256)
def _warn_of_retired(path: Path, key: str) -> None:
    """Once in a process: files are read for every run."""
    logger.warning("%s: %s is not a setting any more and is ignored", path, key)


class _Loader(yaml.SafeLoader):
    """Plain YAML: a name stands once in its section, and nothing is written by reference."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="expected values, not aliases", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # looks like a day, and there is none like it
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                twice = f"the key {_brief(key.value)} stands there twice"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Respelled(int):
    """A whole number whose `text` in the file is not its digits."""

    text: str


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    """YAML reads ``0123``, ``0x10``, ``1:30`` and ``1_000`` as whole numbers, too."""
    number = _Respelled(loader.construct_yaml_int(node))
    number.text = node.value
    return int(number) if str(int(number)) == node.value else number


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def as_written(value: Any) -> Any:
    """The `value`, of what may be an id or a name. Raises `ValueError` for a whole number that YAML
    has made of something else, which would mean another product."""
    if isinstance(value, _Respelled):
        quoted = f'"{value.text[:80]}"'
        raise ValueError(f"write it in quotes, {quoted}: without them YAML reads another value")
    return value


def whole_as_text(value: Any) -> Any:
    """As `as_written`, and of a whole number its digits: YAML reads an id of digits as a number."""
    whole = isinstance(as_written(value), int) and not isinstance(value, bool)
    return str(value) if whole else value


def parse_json(text: bytes | str) -> Any:
    """The content of a JSON text that somebody else may have written. Raises `ValueError` for what
    is no JSON, names a key twice, or is nested beyond reason."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"the key {_brief(key)} stands there twice")
            content[key] = value
        return content

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        deepest = f"expected at most {_MAX_DEPTH} levels of nesting"
        raise ValueError(f"nested too deeply: {deepest}") from None


def _check_extent(value: Any, depth: int = 0) -> None:
    """Raises `RecursionError` or `ValueError` for what is too deep or too large for a setting."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, int | float) and abs(value) > _MAX_NUMBER:
        raise ValueError(f"expected numbers up to {_MAX_NUMBER:.0e}")
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_extent(item, depth + 1)


def _value_at(content: Any, key: Iterable[int | str]) -> Any:
    try:
        return reduce(getitem, key, content)
    except (KeyError, IndexError, TypeError):
        return _NOTHING


def _type_at(model: Any, key: Iterable[int | str]) -> Any:
    """The annotation of what stands at `key` of a `model`; None where it has none."""
    for part in key:
        if _is_model(model):
            model = getattr(model.model_fields.get(part), "annotation", None)
        elif get_origin(model) is dict:
            model = get_args(model)[1]
        else:
            kinds = (kind for kind in get_args(model) if kind not in (NoneType, Ellipsis))
            model = next(kinds, None)
    return model


def said_of(problem: Mapping[str, Any]) -> str:
    """What was expected where pydantic found a `problem` (one of `ValidationError.errors`), in the
    words of who writes files and not of who writes programs."""
    said = _EXPECTED.get(problem["type"])
    if said is not None:
        return said.format_map(problem.get("ctx", {})).replace("' or '", "', '")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "expected")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shown(value: Any, kind: Any) -> str | None:
    """The value; None where there is no single one, or it can be a secret."""
    secret = kind in (None, SecretStr) or SecretStr in get_args(kind)
    if secret or _is_model(kind) or not isinstance(value, str | int | float):
        return None
    return _brief(value)


def _brief(value: Any) -> str:
    text = repr(_LOGIN_IN_URL.sub("***@", value) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
