"""Names and types of the columns that modules hand to each other.

Ids are text everywhere inside, whatever the shop writes: ``"443"``, ``"SKU-12"``. Times are UTC."""

from enum import StrEnum
from typing import Final

# A review or purchase, as read from a source.
USER: Final = "user_id"  # str
PRODUCT: Final = "product_id"  # str
RATING: Final = "rating"  # float32, stars in [1, 5]
TIMESTAMP: Final = "timestamp"  # datetime64[us, UTC]
COMMENT: Final = "comment"  # str, "" when there is none

# What the refresh adds to it.
COMMENT_QUALITY: Final = "comment_quality"  # float32 in [0, 1]
CONFIDENCE: Final = "confidence_score"  # float32 in [1, 6]: rating + comment_quality
EVENT: Final = "event_id"  # str: copies of one review on sibling products share it
WEIGHT: Final = "weight"  # float32 in (0, 1]: 1 / sqrt(copies of the event)
SPLIT: Final = "split"  # str, one of SPLITS

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
EXCLUDED: Final = "excluded"  # later than, or a copy of, a held-out event: used by no side
SPLITS: Final = (TRAIN, VALIDATION, TEST, EXCLUDED)


class Kind(StrEnum):
    """What a customer did. All but ratings are signals."""

    RATING = "rating"
    PURCHASE = "purchase"
    CART = "cart"
    CLICK = "click"
    VIEW = "view"
    DISMISS = "dismiss"


# What a signal has beside a review's user, product and time.
KIND: Final = "kind"  # str, one of Kind
QUANTITY: Final = "quantity"  # float32, pieces
VALUE: Final = "value"  # float64, dong, of all pieces; NaN when unknown
RECOMMENDATION: Final = "recommendation_id"  # str: the served list it came from, "" when unknown
PLACEMENT: Final = "placement"  # str: where in the shop, "" when unknown
SESSION: Final = "session_id"  # str, "" when unknown
RECEIVED: Final = "received_at"  # datetime64[us, UTC]

# A product of the catalogue.
PRODUCT_NAME: Final = "product_name"  # str
BRAND: Final = "brand"  # str, "" when unknown
CATEGORY: Final = "category"  # str, "" when unknown
PRICE: Final = "price"  # float64, dong; NaN when unknown
DESCRIPTION: Final = "description"  # str
FAMILY: Final = "family_id"  # str: listings (sizes, variants) of one product share it
AVAILABLE: Final = "available"  # bool: the product is in the shop's catalogue, and for sale
# What a source may say of a product beside that; a table has those that its source names.
STOCK: Final = "stock"  # float32, pieces; NaN when unknown
AVAILABLE_FROM: Final = "available_from"  # datetime64[us, UTC]: not sold before; NaT when unknown
PICTURE: Final = "picture"  # str: an https address, "" for none
TAGS: Final = "tags"  # str: folded names with line breaks between them, "" for none
SINCE: Final = "since"  # datetime64[us, UTC]: `available_from`, else the first interaction, or NaT
RECENT_SALES: Final = "recent_sales"  # float64: how well it sells, see `recsys.data.sales`

SHOWN_OF_PRODUCTS: Final = (
    *(PRODUCT, PRODUCT_NAME, BRAND, CATEGORY, PRICE, FAMILY, AVAILABLE),
    *(STOCK, AVAILABLE_FROM, TAGS, SINCE, PICTURE),
)
"""Columns of a product that a model keeps and the service answers with, those that there are."""

POSITIVE_RATING: Final = 4.0
NEGATIVE_RATING: Final = 2.0

# Files of a published version.
INTERACTIONS_FILE: Final = "interactions.parquet"
SIGNALS_FILE: Final = "signals.parquet"
MATRIX_FILE: Final = "X_train_confidence.npz"
MAPPINGS_FILE: Final = "user_item_mappings.json"
USER_METADATA_FILE: Final = "user_metadata.parquet"
USER_METADATA_PICKLE: Final = "user_metadata.pkl"
PRODUCTS_FILE: Final = "products.parquet"
SHOWN_FILE: Final = "shown_products.jsonl"
POPULARITY_FILE: Final = "item_popularity.npy"
SALES_FILE: Final = "recent_sales.npy"
STATS_FILE: Final = "data_stats.json"
MANIFEST_FILE: Final = "manifest.json"
EMBEDDINGS_FOLDER: Final = "content_based_embeddings"
