"""Errors that a person has to act on."""


class InputError(ValueError):
    """What a job was given cannot be used: trying again without a change would fail again. The text
    is a sentence that names the file, row or key, what was wrong and what was expected."""


class UnknownError(InputError):
    """There is nothing of this name."""


class RequestError(InputError):
    """Somebody asked a job for what it cannot do: a slip of theirs, and nothing is wrong with the
    system."""


def told(error: BaseException) -> str:
    """What an error says, after its notes: the file that it is about, say."""
    return ": ".join([*getattr(error, "__notes__", ()), str(error)])


class SourceError(InputError):
    """A source is unknown, or its files cannot be used."""
