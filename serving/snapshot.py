"""Everything that one answer is made from, as one value that never changes.

The engine holds one reference to a snapshot. A request takes that reference once, so an answer
can never mix two models, and a swap is one assignment.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recsys.arrays import BoolArray, Float32Array
from recsys.models.artifacts import Artifact
from serving.catalogue import Catalogue
from serving.nearest import NearestItems
from serving.personal_lists import PersonalLists


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

    vectors: Float32Array
    covered: BoolArray
    encode: Callable[[str], Float32Array]


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
    nearest: NearestItems | None = None
    sources: tuple[str, str | None] = ("", None)
    lists: PersonalLists | None = None
    inline: bool = True

    @property
    def popularity(self) -> Float32Array:
        return self.artifact.popularity
