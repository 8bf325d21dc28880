"""A synthetic shop in the ViEcomRec layout, for demos, tests and load tests.

Customers have tastes: most of what one buys comes from a small group of related products, so
that a recommender has something to learn that overall popularity does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from recsys.arrays import Int64Array, ObjectArray
from recsys.errors import InputError
from recsys.publishing import atomic_path
from recsys.settings import Settings

REVIEWS_NAME = "data_reviews_purchase.csv"
PRODUCTS_NAME = "data_product.csv"
FOLDER = "viecomrec"

DEFAULT_REVIEWS = 12_000
DEFAULT_USERS = 3_600
DEFAULT_PRODUCTS = 480

# As in the public data set: 369,099 reviews by 304,708 users, 8.6 % of whom wrote more than one.
REVIEWS_AFTER_THE_FIRST = 64_391 / (0.086 * 304_708)
STAR_SHARES = (0.011, 0.006, 0.011, 0.019, 0.953)
DAYS = 730
OWN_TASTE_SHARE = 0.85
COPY_SHARE = 0.04
WITHOUT_COMMENT_SHARE = 0.25
CAMPAIGN_SHARE = 0.003
PRODUCTS_IN_A_TASTE = 24

_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
_DAY_SECONDS = 86_400

# category, (what the products are called, what they promise)
_CATEGORIES: Final = (
    ("Sữa rửa mặt", ("Sạch Sâu", "Dịu Nhẹ", "Kiềm Dầu", "Ngừa Mụn", "Tràm Trà", "Tạo Bọt")),
    ("Nước tẩy trang", ("Tươi Mát", "Cho Da Nhạy Cảm", "Bí Đao", "Hoa Hồng", "Hai Lớp")),
    ("Kem chống nắng", ("SPF50+ PA++++", "Kiểm Soát Dầu", "Nâng Tông", "Dưỡng Ẩm", "Vật Lý")),
    ("Serum", ("Vitamin C 15%", "Niacinamide 10%", "Hyaluronic Acid", "Retinol 0.5%", "B5")),
    ("Kem dưỡng ẩm", ("Phục Hồi Da", "Rau Má", "Ceramide", "Ban Đêm", "Dạng Gel")),
    ("Nước hoa hồng", ("Không Mùi", "Rau Má", "Trà Xanh", "Cân Bằng", "BHA 2%")),
    ("Mặt nạ", ("Đất Sét", "Ngủ Môi", "Cấp Ẩm", "Trà Xanh", "Collagen")),
    ("Son môi", ("Đỏ Gạch", "Hồng Đất", "Cam Cháy", "Nude", "Đỏ Rượu")),
    ("Phấn nước", ("Che Phủ Cao", "Kiềm Dầu", "Căng Bóng", "Tone Sáng", "Lâu Trôi")),
    ("Dầu gội", ("Bưởi", "Ngừa Gàu", "Phục Hồi Hư Tổn", "Ngăn Rụng", "Hương Nước Hoa")),
    ("Sữa tắm", ("Hương Hoa", "Trắng Da", "Muối Biển", "Dịu Nhẹ", "Yến Mạch")),
    ("Tẩy tế bào chết", ("Cà Phê", "AHA 8%", "Muối Hồng", "Đường Nâu", "Cho Môi")),
)  # fmt: skip

_BRANDS: Final = (
    "Cocoon", "Klairs", "Cosrx", "Bioderma", "La Roche-Posay", "CeraVe", "Simple", "Senka",
    "Hada Labo", "Sunplay", "Anessa", "Innisfree", "Garnier", "L'Oreal", "Maybelline", "Vaseline",
    "Cetaphil", "Thorakao", "Skin1004", "Some By Mi", "Vichy", "Nivea", "Bio-Oil", "Lemonade",
)  # fmt: skip

_SIZES: Final = ("50ml", "100ml", "150ml", "200ml", "400ml", "500ml")

_SKINS: Final = ("Cho Da Dầu", "Cho Da Khô", "Cho Da Nhạy Cảm", "Cho Mọi Loại Da", "Cho Da Mụn")

_DESCRIPTION: Final = (
    "{category} {brand} {promise} {skin} giúp làm sạch, cấp ẩm và nuôi dưỡng. "
    "Thành phần lành tính, không gây kích ứng, kết cấu mỏng nhẹ thấm nhanh. Thương hiệu {brand}."
)

_GOOD_OPENINGS: Final = (
    "Sản phẩm rất tốt", "Mình rất thích em này", "Dùng ổn lắm", "Sp oke nha mn", "Hàng chính hãng",
    "Xài thích cực", "Chất lượng tuyệt vời", "Đáng đồng tiền", "Mua lần thứ {n} rồi", "Tuyệt vời",
    "Ok lắm shop ơi", "Da mình hợp em này", "Em này xịn", "Quá ưng luôn", "Sẽ ủng hộ shop dài dài",
    "Tốt hơn mong đợi", "Dùng {n} ngày đã thấy khác", "Rất hài lòng 😍", "san pham tot", "Thơm",
)  # fmt: skip
_GOOD_DETAILS: Final = (
    "da mịn hẳn", "giảm mụn rõ", "thấm nhanh không bết", "mùi nhẹ nhàng", "không kích ứng",
    "dùng {n} tuần thấy sáng da", "lớp nền đẹp", "không bị khô da", "giao hàng nhanh",
    "đóng gói cẩn thận", "giá tốt so với chất lượng", "da dầu nên thử", "hợp da nhạy cảm",
    "đỡ đổ dầu", "mềm mượt", "rửa sạch mà ko khô", "hương thơm dễ chịu", "cấp ẩm tốt",
    "chai to dùng lâu", "date mới", "tone lên da rất xinh", "nhân viên tư vấn nhiệt tình",
    "mua {n} chai cho cả nhà", "được tặng quà nữa", "dùng sáng tối đều ổn",
)  # fmt: skip
_GOOD_CLOSINGS: Final = (
    "", "sẽ mua lại", "cho shop 5 sao", "cảm ơn shop", "mn nên mua nha", "10 điểm", "❤️❤️",
    "recommend cho bạn bè", "đợt sale mua thêm {n} hộp", "hy vọng dùng lâu vẫn tốt", "👍",
    "giao trong {n} ngày", "chắc chắn quay lại", "quá rẻ", "iu shop",
)  # fmt: skip
_BAD_OPENINGS: Final = (
    "Không hợp với mình", "Thất vọng", "Hàng ko giống mô tả", "Dùng bị kích ứng", "Quá tệ",
    "Mình thấy bình thường", "Không như kỳ vọng", "Chất lượng kém", "Da nổi mụn sau {n} ngày",
    "khong tot", "Giao sai hàng", "Không đáng tiền",
)  # fmt: skip
_BAD_DETAILS: Final = (
    "da bị khô rát", "mùi khó chịu", "nổi mẩn đỏ", "chai bị chảy", "hộp móp", "giao chậm {n} ngày",
    "bết dính", "rửa không sạch", "trôi nhanh", "vón cục", "không thấy hiệu quả", "cay mắt",
)  # fmt: skip
_BAD_CLOSINGS: Final = (
    "", "không mua lại", "cần xem lại", "phí tiền", "😡", "đã đổi trả", "mong shop cải thiện",
    "cho {n} sao thôi", "tiếc tiền", "buồn",
)  # fmt: skip
_CAMPAIGN: Final = "Sản phẩm tốt, đóng gói đẹp, giao hàng nhanh, shop phục vụ rất chuyên nghiệp"


@dataclass(frozen=True)
class SampleShop:
    """Where a sample shop was written and how large it is."""

    reviews_path: Path
    products_path: Path
    reviews: int
    users: int
    products: int


def write_sample_shop(
    folder: Settings | Path,
    *,
    reviews: int = DEFAULT_REVIEWS,
    users: int | None = None,
    products: int | None = None,
    seed: int = 0,
    until: date | None = None,
) -> SampleShop:
    """Write ``data_reviews_purchase.csv`` and ``data_product.csv``; same arguments, same bytes.

    Parameters
    ----------
    folder
        Where to write; settings stand for ``data/raw/viecomrec``, where the source
        ``viecomrec`` looks.
    users, products
        Numbers of each; by default in the proportion of the embedded shop.
    until
        The day before which the last review was written; today in Vietnam by default.

    Raises
    ------
    InputError
        If the numbers cannot be met: fewer reviews than users, or fewer than 24 products.
    """
    users = users if users is not None else max(1, reviews * DEFAULT_USERS // DEFAULT_REVIEWS)
    products = products if products is not None else DEFAULT_PRODUCTS
    if not 0 < users <= reviews:
        raise InputError(f"a sample shop of {reviews} reviews needs 1 to {reviews} users: {users}")
    if products < PRODUCTS_IN_A_TASTE:
        raise InputError(f"a sample shop needs at least {PRODUCTS_IN_A_TASTE} products: {products}")
    target = folder.raw / FOLDER if isinstance(folder, Settings) else folder
    rng = np.random.default_rng(seed)
    end = until or datetime.now(_ZONE).date()

    catalogue = _catalogue(products, rng)
    family = catalogue.pop("family").to_numpy()
    table = _reviews(reviews, users, family, end, rng)
    _write(table, target / REVIEWS_NAME)
    sold = np.bincount(table["product_id"].to_numpy(), minlength=products)
    catalogue["num_sold_time"] = sold * 7 + 3
    _write(catalogue, target / PRODUCTS_NAME)
    return SampleShop(
        target / REVIEWS_NAME, target / PRODUCTS_NAME, len(table), users, len(catalogue)
    )


def _catalogue(products: int, rng: np.random.Generator) -> pd.DataFrame:
    """Families of one to three sizes each; siblings stand next to each other."""
    sizes = rng.choice([1, 1, 1, 2, 2, 3], size=products)
    family = np.repeat(np.arange(products), sizes)[:products]
    size = _rank_in_run(family)
    families = int(family[-1]) + 1
    category = rng.integers(len(_CATEGORIES), size=families)
    names = np.array([name for name, _ in _CATEGORIES], dtype=object)
    promises = np.array([list(p)[:5] for _, p in _CATEGORIES], dtype=object)
    brand = np.array(_BRANDS, dtype=object)[rng.integers(len(_BRANDS), size=families)]
    promise = promises[category, rng.integers(promises.shape[1], size=families)]
    skin = np.array(_SKINS, dtype=object)[rng.integers(len(_SKINS), size=families)]
    first_size = rng.integers(len(_SIZES) - 2, size=families)
    price = rng.lognormal(12.2, 0.6, size=families)

    volume = np.array(_SIZES, dtype=object)[first_size[family] + size]
    name = names[category][family] + " " + brand[family] + " " + promise[family]
    name = name + " " + skin[family] + " " + volume
    text = _DESCRIPTION.split("{")
    parts = {
        "category": names[category][family],
        "brand": brand[family],
        "promise": promise[family],
        "skin": skin[family],
    }
    description = np.full(products, text[0], dtype=object)
    for piece in text[1:]:
        key, rest = piece.split("}")
        description = description + parts[key] + rest
    return pd.DataFrame(
        {
            "product_id": np.arange(products),
            "product_name": name,
            "brand": brand[family],
            "type": names[category][family],
            "price": (price[family] * (1 + 0.6 * size) // 1000 * 1000).astype(np.int64),
            "avg_star": np.round(rng.uniform(4.6, 5.0, size=products), 1),
            "processed_description": description,
            "family": family,
        }
    )


def _reviews(
    reviews: int, users: int, family: Int64Array, end: date, rng: np.random.Generator
) -> pd.DataFrame:
    user = _reviewers(reviews, users, rng)
    product, off_taste = _purchases(user, users, len(family), rng)
    _redraw_repeats(user, product, len(family), rng)
    seconds = rng.integers(DAYS * _DAY_SECONDS, size=reviews)
    rating = rng.choice(np.arange(1, 6), size=reviews, p=STAR_SHARES)
    disliked = off_taste & (rng.random(reviews) < 0.05)
    rating = np.where(disliked, rng.integers(1, 4, size=reviews), rating)
    comment = _comments(rating, rng)

    # A shop shows some reviews on the pages of sibling products as well: same second, same text.
    before = np.arange(reviews) - 1
    sibling = np.where(
        np.roll(family, -1) == family, 1, np.where(np.roll(family, 1) == family, -1, 0)
    )
    copied = (
        (np.diff(user, prepend=-1) == 0)
        & (sibling[product[before]] != 0)
        & (_rank_in_run(user) % 2 == 1)
        & (rng.random(reviews) < 2 * COPY_SHARE)
    )
    original = before[copied]
    product[copied] = product[original] + sibling[product[original]]
    seconds[copied], rating[copied], comment[copied] = (
        seconds[original],
        rating[original],
        comment[original],
    )

    start = (
        int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) - DAYS * _DAY_SECONDS
    )
    order = np.lexsort((product, user, seconds))
    numbers = rng.permutation(users) + 1
    return pd.DataFrame(
        {
            "user_id": numbers[user][order],
            "product_id": product[order],
            "cmt_date": (start + seconds[order]).astype("datetime64[s]"),
            "rating": rating[order],
            "comment": comment[order],
        }
    )


def _reviewers(reviews: int, users: int, rng: np.random.Generator) -> Int64Array:
    """Who wrote each review, ascending; every user at least one, a share of them several."""
    more = reviews - users
    repeat = min(users, max(1, round(more / REVIEWS_AFTER_THE_FIRST))) if more else 0
    count = np.ones(users, dtype=np.int64)
    if repeat:
        sure = min(more, repeat)
        count[:sure] += 1
        share = rng.gamma(1.2, size=repeat)
        drawn = rng.choice(repeat, size=more - sure, p=share / share.sum())
        count[:repeat] += np.bincount(drawn, minlength=repeat)
    return np.repeat(np.arange(users), count)


def _purchases(
    user: Int64Array, users: int, products: int, rng: np.random.Generator
) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Products bought, and which of them lie outside the buyer's taste."""
    tastes = max(1, products // PRODUCTS_IN_A_TASTE)
    group = rng.permutation(products)  # position // PRODUCTS_IN_A_TASTE is the taste
    fame = 1.0 / (1 + np.arange(tastes)) ** 0.5
    taste = rng.choice(tastes, size=users, p=fame / fame.sum())[user]
    own = 1.0 / (1 + np.arange(PRODUCTS_IN_A_TASTE)) ** 0.7
    place = rng.choice(PRODUCTS_IN_A_TASTE, size=len(user), p=own / own.sum())
    anything = 1.0 / (1 + np.arange(products)) ** 0.8
    elsewhere = rng.permutation(products)[
        rng.choice(products, size=len(user), p=anything / anything.sum())
    ]
    off_taste = rng.random(len(user)) >= OWN_TASTE_SHARE
    product = np.where(off_taste, elsewhere, group[taste * PRODUCTS_IN_A_TASTE + place])
    return product, off_taste


def _redraw_repeats(user: Int64Array, product: Int64Array, products: int, rng: np.random.Generator) -> None:
    """Replace most of what a user bought twice by something else, in place."""
    for _ in range(3):
        again = pd.Series(user * products + product).duplicated().to_numpy()
        product[again] = rng.integers(products, size=int(again.sum()))


def _comments(rating: Int64Array, rng: np.random.Generator) -> ObjectArray:
    count = len(rating)
    good = _sentences(
        (_GOOD_OPENINGS, *(_GOOD_DETAILS,) * 2, _GOOD_CLOSINGS), count, rng
    )
    bad = _sentences((_BAD_OPENINGS, _BAD_DETAILS, _BAD_CLOSINGS), count, rng)
    comment = np.where(rating >= 4, good, bad).astype(object)
    comment[rng.random(count) < WITHOUT_COMMENT_SHARE] = ""
    comment[(rng.random(count) < CAMPAIGN_SHARE) & (rating == 5)] = _CAMPAIGN
    return comment


def _sentences(parts: Sequence[Sequence[str]], count: int, rng: np.random.Generator) -> ObjectArray:
    """One phrase of each part; ``{n}`` is a number that differs from sentence to sentence."""
    numbers = np.arange(2, 32).astype(str).astype(object)
    sentence: ObjectArray = np.full(count, "", dtype=object)
    for number, part in enumerate(parts):
        choices = [phrase.partition("{n}") for phrase in part]
        chosen = rng.integers(len(choices), size=count)
        head, mark, tail = (
            np.array(column, dtype=object)[chosen] for column in zip(*choices, strict=True)
        )
        filled = np.where(mark == "", "", numbers[rng.integers(len(numbers), size=count)])
        phrase = head + filled + tail
        separator = np.where(phrase == "", "", ", " if number else "")
        sentence = sentence + separator + phrase
    return sentence


def _rank_in_run(values: Int64Array) -> Int64Array:
    """0, 1, 2, ... within each run of equal neighbours."""
    starts = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def _write(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        pacsv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), temporary)
