"""Which files hold the shop's reviews, products and events, and what their columns are called."""

import contextlib
import json
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from recsys import schema
from recsys.config import (
    ConfigError,
    ConfigModel,
    Document,
    as_written,
    load_config,
    read_mapping,
    whole_as_text,
)
from recsys.data.config import DataConfig
from recsys.data.dialects import Dialect, Mark, is_blank, open_raw
from recsys.data.prices import DONG, PriceFormat
from recsys.errors import SourceError
from recsys.ids import PLACEHOLDERS, IdRules
from recsys.publishing import write_bytes, write_json
from recsys.schedule import TimeZone
from recsys.settings import Settings
from recsys.text import fold

logger = logging.getLogger(__name__)

_EMPTY_BYTES = 1024
SELECTION_NAME = "source.json"
ISO = "iso"
EPOCH = "epoch"

Paths = tuple[Path, ...]
_as_tuple = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
Names = Annotated[tuple[str, ...], _as_tuple, Field(min_length=1)]
"""Column names of a file, in order of preference."""
Value = Annotated[bool | int | str, BeforeValidator(as_written)]
Id = Annotated[str, BeforeValidator(whole_as_text)]
_LAUNCHES = (ISO, EPOCH, "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y")


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
    stock: Names | None = None
    status: Names | None = None
    discontinued: Names | None = None
    available_from: Names | None = None
    tags: Names | None = None
    picture: Names | None = None


class NotForSale(ConfigModel):
    """Which values of a product's columns mean that it is not sold (any more), in any case and with
    or without accents."""

    status: tuple[Value, ...] = ()
    discontinued: tuple[Value, ...] = ("1", "true", "yes", "co", "x")

    @property
    def texts_of_status(self) -> frozenset[str]:
        return frozenset(text for value in self.status for text in _texts(value))

    @property
    def texts_of_discontinued(self) -> frozenset[str]:
        return frozenset(text for value in self.discontinued for text in _texts(value))


def _texts(value: Value) -> tuple[str, ...]:
    """What a file may have, folded, for a value of the description, where `yes` is no text."""
    if isinstance(value, bool):
        return ("true", "yes", "on") if value else ("false", "no", "off")
    return (fold(str(value)),)


def _known_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    if any(text not in (ISO, EPOCH) and "%" not in text for text in formats):
        raise ValueError(f"expected '{ISO}', '{EPOCH}' or a format such as '%d/%m/%Y'")
    return formats


TimeFormats = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_formats)]


class TimestampFormat(ConfigModel):
    """The columns that make up a review's time, and how they may be written. Each may have several
    names, in order of preference."""

    columns: Annotated[tuple[Names, ...], _as_tuple, Field(min_length=1)]
    formats: TimeFormats = (ISO,)

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


class TimedFiles(Files):
    """Files of what customers did at some time, and which customers stand for many people."""

    timestamp: TimestampFormat
    placeholders: tuple[Id, ...] = PLACEHOLDERS

    @property
    def needed(self) -> dict[str, tuple[str, ...]]:
        return {**super().needed, **self.timestamp.candidates}


class ReviewFiles(TimedFiles):
    """Where the reviews are."""

    columns: ReviewColumns


class PricedFiles(Files):
    """Files with amounts of money, and how these are written."""

    currency: str = DONG
    decimal: Mark | None = None
    thousands: Mark | None = None

    @property
    def price_format(self) -> PriceFormat:
        return PriceFormat(self.currency.upper(), self.decimal, self.thousands)


class ProductFiles(PricedFiles):
    """Where the products are, which of them got another id (old -> new), and how their columns say
    what is sold, and from when on."""

    columns: ProductColumns
    aliases: dict[Id, Id] = Field(default_factory=dict)
    not_for_sale: NotForSale = NotForSale()
    available_from_formats: TimeFormats = _LAUNCHES
    tag_separator: str = Field(default=",", min_length=1)

    @field_validator("aliases")
    @classmethod
    def _aliases_end(cls, aliases: dict[str, str]) -> dict[str, str]:
        IdRules.of((), aliases)
        return aliases

    @model_validator(mode="after")
    def _statuses_are_read(self) -> "ProductFiles":
        if (self.columns.status is None) != (not self.not_for_sale.status):
            raise ValueError(
                "expected columns.status and not_for_sale.status together: which column, and which "
                "of its texts mean that a product is not for sale"
            )
        return self


class EventColumns(Columns):
    """Of a signal; `value` is that of all pieces of the row, not of one."""

    product_id: Names
    user_id: Names | None = None
    session_id: Names | None = None
    event_id: Names | None = None
    quantity: Names | None = None
    value: Names | None = None
    recommendation_id: Names | None = None
    placement: Names | None = None


class Kinds(ConfigModel):
    """The column that says what a row is, and what its `values` mean, in any case and with or
    without accents. Rows with `ignored` values, such as cancelled orders, are passed over."""

    column: Names
    values: dict[str, schema.Kind] = Field(min_length=1)
    ignored: tuple[str, ...] = ()

    @property
    def by_text(self) -> dict[str, str]:
        """What each value means, by its folded text; "" for those that are passed over."""
        texts = {fold(text): kind.value for text, kind in self.values.items()}
        return {**dict.fromkeys(map(fold, self.ignored), ""), **texts}

    @model_validator(mode="after")
    def _values_differ(self) -> "Kinds":
        if len(self.by_text) < len(self.values) + len(self.ignored):
            raise ValueError("two of values and ignored are one but for case and accents")
        return self


class EventFiles(TimedFiles, PricedFiles):
    """Where the events of one export are: of one `kind`, or of those that a column says."""

    columns: EventColumns
    kind: schema.Kind | None = None
    kinds: Kinds | None = None

    @model_validator(mode="after")
    def _can_be_read(self) -> "EventFiles":
        if (self.kind is None) == (self.kinds is None):
            raise ValueError("expected either kind or kinds")
        said = {self.kind} if self.kinds is None else set(self.kinds.values.values())
        if schema.Kind.RATING in said:
            raise ValueError("ratings are no events of this form: describe them as reviews")
        if self.columns.user_id is None and self.columns.session_id is None:
            raise ValueError("columns: expected user_id, session_id or both")
        if self.price_format.currency != DONG:
            raise ValueError(f"currency: {self.currency}: expected {DONG}: values are in dong")
        return self

    @property
    def needed(self) -> dict[str, tuple[str, ...]]:
        return {
            **super().needed,
            **({} if self.kinds is None else {schema.KIND: self.kinds.column}),
        }


class EventSourceConfig(ConfigModel):
    """One file of ``config/sources`` that describes events instead of reviews and products."""

    timezone: TimeZone = "Asia/Ho_Chi_Minh"
    events: EventFiles


class SourceConfig(ConfigModel):
    """One file of ``config/sources``."""

    timezone: TimeZone = "Asia/Ho_Chi_Minh"
    reviews: ReviewFiles
    products: ProductFiles

    @property
    def id_rules(self) -> IdRules:
        return IdRules.of(self.reviews.placeholders, self.products.aliases)


@dataclass(frozen=True)
class EventSource:
    """A source of events with its files found; `passed_over` are the empty ones among them."""

    name: str
    config: EventSourceConfig
    files: Paths
    passed_over: Paths = ()

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides how the files are read, for comparing two runs."""
        return {"name": self.name, **self.config.model_dump(mode="json")}


@dataclass(frozen=True)
class Source:
    """A source with its files found."""

    name: str
    config: SourceConfig
    review_files: Paths
    product_files: Paths
    passed_over: Paths = ()
    """Empty files among those that a pattern names."""
    events: tuple[EventSource, ...] = ()
    """What is read beside it."""

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides how the files are read, for comparing two runs."""
        own = {"name": self.name, **self.config.model_dump(mode="json")}
        events = [one.description for one in self.events]
        return {**own, "events": events} if events else own


def load_source(settings: Settings, name: str) -> SourceConfig:
    """Read ``config/sources/<name>.yaml``. Raises `SourceError` listing the known names."""
    return _described(settings, name, of_events=False).validate(SourceConfig)


def load_event_source(settings: Settings, name: str) -> EventSourceConfig:
    """The same of a source of events."""
    return _described(settings, name, of_events=True).validate(EventSourceConfig)


def _described(settings: Settings, name: str, *, of_events: bool) -> Document:
    known, path = (
        _names(settings, of_events=of_events),
        settings.config_file(f"sources/{name}.yaml"),
    )
    if name not in known:
        names, own = ", ".join(known) or "none", settings.config / "sources"
        expected = f"expected one of those in config/sources or {own}: {names}"
        if name in _names(settings, of_events=not of_events):
            read_mapping(path)  # it may be of no sense at all
            if of_events:
                raise SourceError(f"the source {name!r} has no events: {expected}")
            hint = f"{expected}; name it in data.yaml: events"
            raise SourceError(f"the source {name!r} has events and no reviews: {hint}")
        if of_events:
            raise SourceError(f"there is no source of events {name!r}: {expected}")
        raise SourceError(f"there is no source {name!r}: {expected}")
    # A source is one description of one set of files: the state root's replaces the shipped one.
    return Document(((path, read_mapping(path)),))


def id_rules(settings: Settings) -> IdRules:
    """What the ids mean in the source that refreshes read. Raises `SourceError` or `ConfigError` if
    there is none, or its description cannot be used."""
    return load_source(settings, source_name(settings)).id_rules


def known_sources(settings: Settings) -> list[str]:
    """Names of all descriptions of reviews and products."""
    return _names(settings, of_events=False)


def _names(settings: Settings, *, of_events: bool) -> list[str]:
    """Names of the descriptions of events, or of the others, among them those of no sense."""
    folders = settings.config_folders
    names = {file.stem for folder in folders for file in folder.glob("sources/*.yaml")}
    return sorted(name for name in names if _is_of_events(settings, name) is of_events)


def _is_of_events(settings: Settings, name: str) -> bool:
    with contextlib.suppress(ConfigError):
        return "events" in read_mapping(settings.config_file(f"sources/{name}.yaml"))
    return False


def resolve_event_sources(settings: Settings) -> list[EventSource]:
    """The sources of events that ``data.yaml`` lists. Raises `SourceError` if one is unknown, or
    one of its files is missing, or all of them are empty."""
    found = []
    for name in load_config(settings, DataConfig).events:
        config = load_event_source(settings, name)
        filled, empty = _files(settings, config.events.path, f"{name}: events")
        found.append(EventSource(name, config, filled, empty))
    return found


def source_name(settings: Settings) -> str:
    """Name of the source that refreshes read, whether or not its files are there."""
    return str(_read_selection(settings)["source"])


def resolve_source(settings: Settings) -> Source:
    """The source that refreshes read: the selected one, else the one of ``data.yaml``, and the
    sources of events beside it. Raises `SourceError` if one is unknown, or one of its files is
    missing or empty."""
    source, events = _locate(settings, _read_selection(settings)), resolve_event_sources(settings)
    passed_over = [path for one in events for path in one.passed_over]
    return replace(source, events=tuple(events), passed_over=(*source.passed_over, *passed_over))


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
