"""Everything that one answer is made from, as one value that never changes.

The engine holds one reference to a snapshot. A request takes that reference once, so an answer
can never mix two models, and a swap is one assignment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.models.artifacts import Artifact
from recsys.models.base import FloatArray, IntArray
from serving.ranking import BoolArray

if TYPE_CHECKING:
    from serving.nearest import NearestItems
    from serving.personal_lists import PersonalLists


@dataclass(frozen=True)
class Catalogue:
    """The products of a model, by column number: what is shown, and what may be shown.

    Attributes
    ----------
    names, brands, categories
        As the shop writes them, "" when unknown.
    prices
        Dong, None when unknown.
    price_array
        ``(items,)`` float64, the same with NaN.
    families
        ``(items,)`` int32 number of the product family: 0, 1, ... without gaps.
    family_members, family_starts
        Columns in the order of their families, and where each family begins there (and, at the
        end, their number).
    available
        ``(items,)`` may be recommended: listed, not hidden, in stock.
    brand_items, category_items
        Columns of each brand and category, by folded name.
    source
        The data version that it is from, or the model's id.
    """

    item_ids: list[str]
    index: dict[str, int]
    names: list[str]
    brands: list[str]
    categories: list[str]
    prices: list[float | None]
    price_array: NDArray[np.float64]
    families: IntArray
    family_members: IntArray
    family_starts: NDArray[np.int64]
    available: BoolArray
    brand_items: dict[str, IntArray]
    category_items: dict[str, IntArray]
    source: str

    def listings(self, items: IntArray) -> tuple[IntArray, NDArray[np.int64]]:
        """Columns of all listings of the families of `items`, these included.

        Also the position in `items` that each of them is there for.
        """
        families = self.families[items]
        starts = self.family_starts[families]
        counts = self.family_starts[families + 1] - starts
        owner = np.repeat(np.arange(len(items)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.family_members[starts[owner] + within], owner


@dataclass(frozen=True)
class ContentIndex:
    """Text embeddings lined up with the columns of a model.

    Attributes
    ----------
    vectors
        ``(items, d)`` float32, normalised; zeros where a product has no embedding.
    covered
        ``(items,)`` has an embedding.
    encode
        From a text query to its ``(d,)`` vector.
    """

    vectors: FloatArray
    covered: BoolArray
    encode: Callable[[str], FloatArray]


@dataclass(frozen=True)
class Snapshot:
    """A model with all that belongs to it.

    Attributes
    ----------
    position
        Row of a known user in the artefact's histories, None for others.
    inline
        Scoring one user is quick enough to be done on the event loop.
    loaded_at
        Seconds since 1970.
    nearest
        Finds the best products of a very large catalogue without looking at all.
    sources
        Names of the catalogue's version and of the embedding set, to notice newer ones.
    lists
        What known users get as long as nothing new is known of them.
    """

    model_id: str
    model_type: str
    artifact: Artifact
    position: Callable[[str], int | None]
    catalogue: Catalogue
    content: ContentIndex | None
    loaded_at: float
    nearest: "NearestItems | None" = None
    sources: tuple[str, str | None] = ("", None)
    lists: "PersonalLists | None" = None
    inline: bool = True

    @property
    def popularity(self) -> FloatArray:
        return self.artifact.popularity
