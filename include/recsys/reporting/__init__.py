"""What the pages of all reports have in common: two languages, one look, pictures without scripts.

A page is a file that needs nothing else. In Vietnamese it has its plain name, in English it lies
beside it as ``NAME.en.html``; each leads to the other."""

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys.language import LANGUAGES, Language, read_texts
from recsys.pages import templates
from recsys.publishing import write_text

_HERE: Final = Path(__file__).parent
_PLAIN: Final = "vi"  # the language whose pages have the plain names


class Earlier(NamedTuple):
    """A report of before: the page in the same folder, the ISO date of its first day, of its last
    one where it is about several, the state that it found (``severity.STATE`` is what the area
    calls it), None where it has none, and the name that somebody gave to what it is about."""

    page: str
    day: str
    last: str | None = None
    state: str | None = None
    name: str | None = None


def page_in(page: Path, code: str) -> Path:
    """Where the page that is called `page` lies in a language."""
    return page if code == _PLAIN else page.with_suffix(f".{code}{page.suffix}")


def name_in(page: Path, code: str) -> str:
    """The name of the page in a language, or its plain one if it lies there in one only."""
    there = page_in(page, code)
    return there.name if there.is_file() and not there.is_symlink() else page.name


def is_plain(page: Path) -> bool:
    """Whether it has the name that its report is known by."""
    return not any(page.name.endswith(f".{code}.html") for code in LANGUAGES if code != _PLAIN)


def write_pages(page: Path, contents: Mapping[str, str]) -> None:
    """Write what `render_pages` made as `page` and beside it; the one with the plain name last,
    so that whoever finds it finds all."""
    for code in sorted(contents, key=lambda code: code == _PLAIN):
        write_text(page_in(page, code), contents[code])


def render_pages(
    template: Path,
    page: Path,
    zone: tzinfo,
    values: Callable[[Language], Mapping[str, Any]],
    earlier: Sequence[Earlier] = (),
) -> dict[str, str]:
    """The HTML of a report by language. `template` extends ``report_base.html``; the texts are in
    ``texts`` beside its folder. `page` is the file with the plain name, `values` what the template
    needs besides, `earlier` the reports to link to, newest first; one that was written in one
    language only is read in that."""
    environment = templates(template.parent, _HERE / "templates")
    found = environment.get_template(template.name)
    rendered = {}
    for code in LANGUAGES:
        language = language_of(template.parent.parent / "texts", code, zone)
        common = {
            "language": language,
            "t": language.say,
            "switch": [(one, name, page_in(page, one).name) for one, name in LANGUAGES.items()],
            "earlier": [
                one._replace(page=name_in(page.with_name(one.page), code)) for one in earlier
            ],
        }
        rendered[code] = found.render(common | dict(values(language)))
    return rendered


def language_of(folder: Path, code: str, zone: tzinfo) -> Language:
    """A language with the texts of `folder` and those that all reports share."""
    shared = read_texts(_HERE / "texts", code)
    return Language(code, zone, {**shared, **read_texts(folder, code)})
