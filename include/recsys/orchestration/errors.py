"""The one line that tells a person what went wrong."""

import os

from recsys.errors import InputError

LONGEST = 1000


def error_line(error: object) -> str | None:
    """The first line of an error's text with its type, without secrets; None if there is none.

    Bad input speaks for itself: its sentence comes without a type, also when it is the cause of
    the exception that keeps Airflow from trying again.
    """
    if error is None:
        return None
    if isinstance(error, BaseException):
        cause = error.__cause__
        shown = cause if isinstance(cause, InputError) else error
        text = str(shown) if isinstance(shown, InputError) else f"{type(shown).__name__}: {shown}"
    else:
        text = str(error)
    line = next((line for line in text.splitlines() if line.strip()), "no error text")
    return _masked(line)[:LONGEST]


def _masked(text: str) -> str:
    from recsys.alerting.masking import masker_for

    return masker_for(os.environ).mask(text)
