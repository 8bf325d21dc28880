"""Rows of customers who are forgotten: nobody behind the readers of a refresh sees them, whatever
the shop still exports."""

import re
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from recsys.arrays import BoolArray
from recsys.data.dialects import Rejection
from recsys.data.reading import RawRows
from recsys.personal import is_unmistakable
from recsys.privacy import Forgotten
from recsys.pseudonyms import Pseudonyms
from recsys.schema import USER

NOBODY: Final = Forgotten((), Pseudonyms(()))

# What may part the fields of a row that could not be split: an id may have blanks in it.
_BETWEEN_FIELDS: Final = re.compile(r"""[,;|\t\r\n"'{}\[\]]+|: """)
_BETWEEN_WORDS: Final = re.compile(r"""[,;|\s"'{}\[\]:=]+""")


def without_forgotten(raw: RawRows, forgotten: Forgotten) -> RawRows:
    """The rows but for those of customers who are `forgotten`, which are counted. Of what could not
    be split each field is looked at; where a mere number or word may be somebody, the text is."""
    if not forgotten:
        return raw
    table, rejected = raw.table, list[Rejection]()
    if USER in table.column_names:
        table = table.filter(pc.invert(forgotten.mask(table[USER])))
    for number, reason, text in raw.rejected:
        named = _named_in(text, forgotten)
        if not any(map(is_unmistakable, named)):
            rejected.append((number, reason, "" if named else text))
    count = len(raw.table) - len(table) + len(raw.rejected) - len(rejected)
    return replace(raw, table=table, rejected=rejected, forgotten=raw.forgotten + count)


def without_named(texts: pd.Series, forgotten: Forgotten) -> BoolArray:
    """Which of the texts of rows that were split, and are no good, do not name anybody who is
    `forgotten` in another field than that of the customer."""
    if not forgotten:
        return np.ones(len(texts), dtype=np.bool_)
    named = (_named_in(text, forgotten) for text in texts)
    return np.array([not any(map(is_unmistakable, one)) for one in named], dtype=np.bool_)


def _named_in(text: str, forgotten: Forgotten) -> set[str]:
    fields = {*_BETWEEN_FIELDS.split(text), *_BETWEEN_WORDS.split(text)}
    return {field for one in fields if (field := one.strip()) and field in forgotten}
