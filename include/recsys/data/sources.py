"""Which files hold the shop's reviews and products, and what their columns are called."""

import json
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from recsys import schema
from recsys.config import ConfigModel, Document, load_config, read_mapping
from recsys.data.config import DataConfig
from recsys.data.dialects import Dialect, Mark, is_blank, open_raw
from recsys.data.prices import DONG, PriceFormat
from recsys.errors import SourceError
from recsys.ids import PLACEHOLDERS, IdRules
from recsys.publishing import write_bytes, write_json
from recsys.schedule import TimeZone
from recsys.settings import REPOSITORY, Settings

logger = logging.getLogger(__name__)

_EMPTY_BYTES = 1024
SELECTION_NAME = "source.json"
ISO = "iso"
EPOCH = "epoch"

Paths = tuple[Path, ...]
_as_tuple = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
Names = Annotated[tuple[str, ...], _as_tuple, Field(min_length=1)]
"""Column names of a file, in order of preference."""


class Columns(ConfigModel):
    """What the shop calls the columns that have our names here."""

    def candidates(self, *, needed: bool) -> dict[str, tuple[str, ...]]:
        """Ours -> theirs, of the columns that every file must have, or of the others."""
        fields = type(self).model_fields.items()
        chosen = [name for name, field in fields if field.is_required() is needed]
        return {name: getattr(self, name) for name in chosen if getattr(self, name)}


class ReviewColumns(Columns):
    """Of a review."""

    user_id: Names
    product_id: Names
    rating: Names
    comment: Names | None = None


class ProductColumns(Columns):
    """Of a product."""

    product_id: Names
    product_name: Names
    brand: Names | None = None
    category: Names | None = None
    price: Names | None = None
    description: Names | None = None


class TimestampFormat(ConfigModel):
    """The columns that make up a review's time, and how they may be written. Each may have several
    names, in order of preference."""

    columns: Annotated[tuple[Names, ...], _as_tuple, Field(min_length=1)]
    formats: tuple[str, ...] = Field(default=(ISO,), min_length=1)

    @field_validator("formats")
    @classmethod
    def _formats_are_known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if any(text not in (ISO, EPOCH) and "%" not in text for text in formats):
            raise ValueError(f"expected '{ISO}', '{EPOCH}' or a format such as '%d/%m/%Y'")
        return formats

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Our names of the columns, in the order in which they are joined -> theirs."""
        return {f"{schema.TIMESTAMP} {names[0]}": names for names in self.columns}


class Files(Dialect):
    """Where files of one kind are, and what their columns are called."""

    path: str
    columns: Columns

    @property
    def needed(self) -> dict[str, tuple[str, ...]]:
        """Columns that every file must have: ours -> candidates."""
        return self.columns.candidates(needed=True)

    @property
    def optional(self) -> dict[str, tuple[str, ...]]:
        """Columns that a file may have."""
        return self.columns.candidates(needed=False)


class ReviewFiles(Files):
    """Where the reviews are, and which of their customers stand for many people."""

    columns: ReviewColumns
    timestamp: TimestampFormat
    placeholders: tuple[str | int, ...] = PLACEHOLDERS

    @property
    def needed(self) -> dict[str, tuple[str, ...]]:
        return {**super().needed, **self.timestamp.candidates}


class ProductFiles(Files):
    """Where the products are, and which of them got another id (old -> new)."""

    columns: ProductColumns
    currency: str = DONG
    decimal: Mark | None = None
    thousands: Mark | None = None
    aliases: dict[str | int, str | int] = Field(default_factory=dict)

    @field_validator("aliases")
    @classmethod
    def _aliases_end(cls, aliases: dict[str | int, str | int]) -> dict[str | int, str | int]:
        IdRules.of((), aliases)
        return aliases

    @property
    def price_format(self) -> PriceFormat:
        return PriceFormat(self.currency.upper(), self.decimal, self.thousands)


class SourceConfig(ConfigModel):
    """One file of ``config/sources``."""

    timezone: TimeZone = "Asia/Ho_Chi_Minh"
    reviews: ReviewFiles
    products: ProductFiles

    @property
    def id_rules(self) -> IdRules:
        return IdRules.of(self.reviews.placeholders, self.products.aliases)


@dataclass(frozen=True)
class Source:
    """A source with its files found."""

    name: str
    config: SourceConfig
    review_files: Paths
    product_files: Paths
    passed_over: Paths = ()
    """Empty files among those that a pattern names."""

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides how the files are read, for comparing two runs."""
        return {"name": self.name, **self.config.model_dump(mode="json")}


def load_source(settings: Settings, name: str) -> SourceConfig:
    """Read ``config/sources/<name>.yaml``. Raises `SourceError` listing the known names."""
    path = settings.config_file(f"sources/{name}.yaml")
    if name != Path(name).name or not path.is_file():
        known = ", ".join(known_sources(settings)) or "none"
        raise SourceError(f"{name!r} is not a source: expected one of config/sources: {known}")
    # A source is one description of one set of files: the state root's replaces the shipped one.
    return Document(((path, read_mapping(path)),)).validate(SourceConfig)


def id_rules(settings: Settings) -> IdRules:
    """What the ids mean in the source that refreshes read. Raises `SourceError` or `ConfigError` if
    there is none, or its description cannot be used."""
    return load_source(settings, _read_selection(settings)["source"]).id_rules


def known_sources(settings: Settings) -> list[str]:
    """Names of all source descriptions."""
    folders = (settings.home / "config" / "sources", REPOSITORY / "config" / "sources")
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def resolve_source(settings: Settings) -> Source:
    """The source that refreshes read: the selected one, else the one of ``data.yaml``. Raises
    `SourceError` if it is unknown, or one of its files is missing or empty."""
    return _locate(settings, _read_selection(settings))


def select_source(
    settings: Settings,
    source: str,
    reviews: str | Path | None = None,
    products: str | Path | None = None,
) -> Source:
    """Make `source` the one that refreshes read, after looking into its files.

    `reviews` and `products` are files or globs to read instead of those that the description names;
    relative ones are looked up from the current folder. Raises `SourceError`, and changes nothing,
    if the source is unknown, or a file is missing, empty, not in the expected encoding, or lacks a
    column.
    """
    from recsys.data.reading import check_file

    given = {"reviews": reviews, "products": products}
    chosen = {key: None if at is None else str(Path(at).absolute()) for key, at in given.items()}
    found = _locate(settings, {"source": source, **chosen})
    for path in found.review_files:
        check_file(path, found.config.reviews.needed, found.config.reviews)
    for path in found.product_files:
        check_file(path, found.config.products.needed, found.config.products)
    selection = {"source": source, **chosen, "selected_at": datetime.now(UTC).isoformat()}
    write_json(settings.home / "data" / SELECTION_NAME, selection)
    return found


@contextmanager
def selection_kept_on_failure(settings: Settings) -> Iterator[None]:
    """Put the selection of before back when the block fails: the nightly refresh reads it."""
    path = settings.home / "data" / SELECTION_NAME
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes(path, before)
        raise


def _read_selection(settings: Settings) -> dict[str, Any]:
    """What was selected, else the source of ``data.yaml``."""
    path = settings.home / "data" / SELECTION_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise SourceError(f"{path}: cannot be read: {error}; select the source again") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path}: expected the keys source, reviews and products")
    source = content.get("source") or load_config(settings, DataConfig).source
    return {**content, "source": str(source)}


def _locate(settings: Settings, selection: dict[str, Any]) -> Source:
    config = load_source(settings, name := selection["source"])
    reviews = selection.get("reviews") or config.reviews.path
    products = selection.get("products") or config.products.path
    filled, empty = _files(settings, reviews, f"{name}: reviews")
    products_filled, products_empty = _files(settings, products, f"{name}: products")
    return Source(name, config, filled, products_filled, (*empty, *products_empty))


def _files(settings: Settings, pattern: str, what: str) -> tuple[Paths, Paths]:
    """The files with content, and the empty ones among them that are passed over."""
    full = settings.home / pattern
    # Only the name may be a pattern: what looks like one in a folder's name is its name.
    found = [full] if full.exists() else sorted(full.parent.glob(full.name))
    if not found:
        raise SourceError(f"source {what}: {full}: the file does not exist")
    files: dict[bool, list[Path]] = {True: [], False: []}
    for path in found:
        try:
            if not path.is_file():
                raise SourceError(f"source {what}: {path}: expected a file")
            with open_raw(path) as file:
                files[is_blank(file.read(_EMPTY_BYTES))].append(path)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"source {what}: {path}: cannot be read: {error}") from error
    if not files[False]:
        raise SourceError(f"source {what}: {found[0]}: the file is empty")
    for path in files[True]:  # a day without reviews among daily files
        logger.warning("source %s: %s: the file is empty, and passed over", what, path)
    return tuple(files[False]), tuple(files[True])
