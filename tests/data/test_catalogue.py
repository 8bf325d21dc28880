"""What a catalogue must be to be published, and what of its texts is shown."""

import pytest

from recsys.data.versions import current_version
from recsys.refresh import RefreshError
from tests.data.shop import refresh, row, write_shop

ROWS = [row(f"u{number}", number % 9) for number in range(12)]
FULL = [f"{number},Kem số {number},Cocoon,Kem,10{number}000,Mô tả" for number in range(20)]
NAMELESS = [f"{number},,Cocoon,Kem,10{number}000,Mô tả" for number in range(20)]


@pytest.fixture
def shop(settings):
    write_shop(settings, ROWS, FULL)
    refresh(settings)
    return settings


@pytest.mark.parametrize(
    ("products", "why"),
    [
        (FULL[:2], "only 2 products are left of the 20 .*max_shrink_fraction"),
        ([], "the catalogue has no products"),
        (NAMELESS, "20 of the 20 products are bad.*max_invalid_fraction"),
        ([*FULL[:10], *NAMELESS[10:]], "10 of the 20 products are bad"),
    ],
    ids=["cut off", "header only", "no names", "half without names"],
)
def test_a_catalogue_that_is_gone_is_refused_unless_forced(shop, products, why):
    before = current_version(shop).version_id
    write_shop(shop, [*ROWS, row("new")], products)
    with pytest.raises(RefreshError, match=why):
        refresh(shop)
    assert current_version(shop).version_id == before
    assert refresh(shop, force_full=True)["published"]
    valid = sum("Kem số" in product for product in products)
    assert current_version(shop).stats()["products_available"] == valid


def test_a_first_version_without_products_is_refused(settings):
    write_shop(settings, ROWS, [])
    with pytest.raises(RefreshError, match="the export is empty"):
        refresh(settings)


def test_some_products_may_go_and_some_may_be_bad(shop):
    write_shop(shop, ROWS, [*FULL[:12], *NAMELESS[:2]])
    summary = refresh(shop)
    assert summary["products"] == {"valid": 12, "quarantined": 2, "unclear_prices": 0}


MARKED = (
    "L&#039;Or&eacute;al Kem d&#432;&#7905;ng tr&#7855;ng da &amp; ng&#7915;a n&aacute;m 50ml",
    "L&#039;Or&eacute;al",
    "&lt;p&gt;D&agrave;nh cho <b>da kh&ocirc;</b>&lt;/p&gt;&nbsp;<style>p{color:red}</style>"
    "<img src='data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=='>rau m&aacute;<br/>",
)


def test_markup_leaves_names_and_texts_before_anything_reads_them(settings):
    name, brand, text = MARKED
    products = [
        f'1,{name},{brand},Kem,189000,"{text}"',
        "2,L'Oréal Kem dưỡng trắng da & ngừa nám 100ml,L'Oréal,Kem,289000,Khác",
        *FULL[3:9],
    ]
    write_shop(settings, ROWS, products)
    refresh(settings)
    table = current_version(settings).products().set_index("product_id")
    first = table.loc["1"]
    assert first["product_name"] == "L'Oréal Kem dưỡng trắng da & ngừa nám 50ml"
    assert (first["brand"], first["description"]) == ("L'Oréal", "Dành cho da khô\nrau má")
    assert first["family_id"] == table.loc["2", "family_id"]


def test_a_name_of_markup_alone_is_no_name(settings):
    write_shop(settings, ROWS, [*FULL, "30,<p>&nbsp;</p>,Cocoon,Kem,1,x"])
    assert refresh(settings)["products"]["quarantined"] == 1


def test_what_only_looks_like_markup_stays(settings):
    names = ["R&D <Mới> SPF<50> 2 <3 B&B", "a<b and c>d", "Kem &copy cũ"]
    products = [f"{30 + at},{name},Cocoon,Kem,1,x" for at, name in enumerate(names)]
    write_shop(settings, ROWS, [*FULL, *products])
    refresh(settings)
    table = current_version(settings).products().set_index("product_id")
    assert [table.loc[str(30 + at), "product_name"] for at in range(len(names))] == names


def test_a_text_without_markup_keeps_its_lines(settings):
    text = "Dùng sáng & tối.\n\nTránh vùng mắt  (<3 tuổi)"
    write_shop(settings, ROWS, [*FULL, f'30,Son,Cocoon,Son,1,"{text}"'])
    refresh(settings)
    table = current_version(settings).products().set_index("product_id")
    assert table.loc["30", "description"] == text


def test_unclear_prices_are_counted(settings):
    write_shop(settings, ROWS, [*FULL, "30,Son,Cocoon,Son,liên hệ,x", "31,Son 2,Cocoon,Son,,x"])
    assert refresh(settings)["products"]["unclear_prices"] == 1


def test_paragraphs_and_items_keep_their_lines_and_names_have_one(settings):
    text = (
        "<h2>Công dụng</h2><p>Dưỡng <b>ẩm</b>.<br/>Sáng da</p><ul><li>50ml</li><li>100ml</li></ul>"
    )
    write_shop(settings, ROWS, [*FULL, f"30,Son<br>đỏ,Cocoon,Son,1,{text}"])
    refresh(settings)
    product = current_version(settings).products().set_index("product_id").loc["30"]
    assert product["product_name"] == "Son đỏ"
    lines = ["Công dụng", "Dưỡng ẩm .", "Sáng da", "50ml", "100ml"]
    assert product["description"].splitlines() == lines
