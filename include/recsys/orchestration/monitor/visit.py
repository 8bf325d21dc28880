"""Who asks for a page, where from and in which language."""

from typing import Final, NamedTuple

from fastapi import Request

from recsys.orchestration.monitor.language import preferred, texts

LANGUAGE_COOKIE: Final = "recsys_language"


class Visit(NamedTuple):
    """A request as the pages see it: the path at which the monitor is mounted, behind whatever path
    Airflow itself has; what was asked for, query included; the code of the language."""

    root: str
    path: str
    language: str

    @property
    def airflow(self) -> str:
        """The path of Airflow's own pages."""
        return self.root.rpartition("/")[0]

    def say(self, name: str, /, **values: object) -> str:
        """A text of the language, without numbers or times in it."""
        return texts(self.language)[name].format(**values)


def visit_of(request: Request) -> Visit:
    """The visit that a request is."""
    root, query = str(request.scope.get("root_path", "")), request.url.query
    # As it was asked for: a run id may hold characters that mean something else in a URL.
    raw = request.scope.get("raw_path") or request.url.path.encode()
    path = raw.decode("latin-1")
    accepted = request.headers.get("accept-language", "")
    code = preferred(request.cookies.get(LANGUAGE_COOKIE), accepted)
    return Visit(root, f"{path}?{query}" if query else path, code)
