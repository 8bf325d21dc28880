"""A part of a page stands alone: one that cannot be read says so and leaves the others as they
are."""

import logging
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from recsys.errors import InputError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


class Section(NamedTuple, Generic[Content]):
    """A part of the page: its content, or the sentence why there is none."""

    content: Content | None
    problem: str | None = None


def section(read: Callable[[], Content | None]) -> Section[Content]:
    """What `read` returns, or what was wrong."""
    try:
        return Section(read())
    except InputError as error:
        return Section(None, str(error))
    except Exception as error:
        logger.exception("A part of the monitor cannot be shown")
        return Section(None, f"{type(error).__name__}: {error}")
