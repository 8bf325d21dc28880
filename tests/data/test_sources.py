"""Choosing a source: checked first, written last."""

import pytest

from recsys.config import ConfigError
from recsys.data.sources import (
    known_sources,
    load_source,
    resolve_source,
    select_source,
    selection_kept_on_failure,
)
from recsys.errors import InputError, SourceError
from tests.data.shop import HEADER, refresh, row, write_shop
from tests.refresh.test_nights import describe


def test_the_source_of_the_configuration_is_used_until_another_is_selected(settings, tmp_path):
    write_shop(settings, [row()])
    assert resolve_source(settings).name == "viecomrec"
    (tmp_path / "r.csv").write_text(f"{HEADER}\n{row()}\n")
    selected = select_source(settings, "viecomrec", tmp_path / "r.csv")
    assert selected.review_files == (tmp_path / "r.csv",)
    assert resolve_source(settings).review_files == (tmp_path / "r.csv",)
    assert select_source(settings, "viecomrec").review_files != (tmp_path / "r.csv",)


def test_a_selection_that_comes_to_nothing_is_taken_back(settings, tmp_path):
    write_shop(settings, [row()])
    (tmp_path / "r.csv").write_text(f"{HEADER}\n{row()}\n")
    for before in ((), (tmp_path / "r.csv",)):
        if before:
            select_source(settings, "viecomrec", *before)
        chosen = resolve_source(settings).review_files
        (tmp_path / "other.csv").write_text(f"{HEADER}\n{row()}\n")
        with pytest.raises(KeyboardInterrupt), selection_kept_on_failure(settings):  # noqa: PT012
            select_source(settings, "viecomrec", tmp_path / "other.csv")
            assert resolve_source(settings).review_files != chosen
            raise KeyboardInterrupt
        assert resolve_source(settings).review_files == chosen
    damaged = settings.home / "data" / "source.json"
    damaged.write_bytes(b"\xff")
    with pytest.raises(KeyboardInterrupt), selection_kept_on_failure(settings):
        raise KeyboardInterrupt
    assert damaged.read_bytes() == b"\xff"


def test_an_unknown_source_lists_the_known_ones(settings):
    with pytest.raises(InputError, match="hasaki, viecomrec"):
        select_source(settings, "amazon")
    with pytest.raises(InputError, match="there is no source"):
        load_source(settings, "../data")
    assert known_sources(settings) == ["hasaki", "viecomrec"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        ("user_id;rating\n".encode("utf-16"), "the text is not utf-8"),
        (b"user_id,product_id,cmt_date\n1,2,2025-01-01\n", "no column 'rating'"),
    ],
)
def test_a_bad_file_is_refused_and_the_selection_stays(settings, tmp_path, content, problem):
    write_shop(settings, [row()])
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        select_source(settings, "viecomrec", tmp_path / "bad.csv")
    assert not (settings.home / "data" / "source.json").exists()


def test_a_glob_reads_all_files_and_rows_count_once(settings):
    from tests.data.shop import pairs, refresh

    write_shop(settings, [row()])
    folder = settings.raw / "viecomrec"
    (folder / "part-1.csv").write_text(f"{HEADER}\n{row('a')}\n{row('b')}\n")
    (folder / "part-2.csv").write_text(f"{HEADER}\n{row('b')}\n{row('c')}\n")
    source = select_source(settings, "viecomrec", folder / "part-*.csv")
    assert [path.name for path in source.review_files] == ["part-1.csv", "part-2.csv"]
    assert refresh(settings)["rows"]["superseded"] == 1
    assert {user for user, _, _ in pairs(settings)} == {"a", "b", "c"}


def test_a_bad_description_names_the_key(settings):
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text("timezone: Mars\nreviews: {path: x, colums: {}}\n")
    with pytest.raises(ConfigError, match=r"(?s)timezone.*reviews\.columns"):
        load_source(settings, "shop")


def test_what_yaml_reads_as_another_number_is_no_id_and_no_value(settings):
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True)
    text = """reviews: {path: x, columns: {user_id: u, product_id: p, rating: r},
      timestamp: {columns: [t]}, placeholders: [0, GUEST]}
products: {path: x, columns: {product_id: p, product_name: n, status: s},
  aliases: {NEW: 5}, not_for_sale: {status: [7, SOLD]}}
"""
    wrong = text.replace("GUEST", "012").replace("NEW", "0x10").replace("SOLD", "1_000")
    (folder / "shop.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as caught:
        load_source(settings, "shop")
    lines = str(caught.value).splitlines()
    keys = ("reviews.placeholders.1", "products.aliases", "products.not_for_sale.status.1")
    assert len(lines) == len(keys)
    for line, key, written in zip(lines, keys, ("012", "0x10", "1_000"), strict=True):
        assert f": {key}" in line
        assert f'write it in quotes, "{written}"' in line
    right = text.replace("GUEST", '"012"').replace("NEW", '"0x10"').replace("SOLD", '"1_000"')
    (folder / "shop.yaml").write_text(right)
    source = load_source(settings, "shop")
    assert source.reviews.placeholders == ("0", "012")
    assert source.products.aliases == {"0x10": "5"}
    assert source.products.not_for_sale.texts_of_status == {"7", "1_000"}


@pytest.mark.parametrize("encoding", ["utf-99", "base64"])
def test_an_encoding_that_is_none_names_the_key(settings, encoding):
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text(f"reviews: {{path: x, encoding: {encoding}}}\n")
    with pytest.raises(ConfigError, match=rf"reviews\.encoding.*{encoding}"):
        load_source(settings, "shop")


def test_a_torn_selection_says_what_to_do(settings):
    (settings.home / "data").mkdir(parents=True)
    (settings.home / "data" / "source.json").write_text("{")
    with pytest.raises(InputError, match="select the source again"):
        resolve_source(settings)


def test_a_column_of_the_time_may_have_several_names(settings):
    write_shop(settings, [row(f"u{number}") for number in range(3)])
    describe(settings, columns="[[thoi_gian, cmt_date]]", user_id="[khach, user_id]")
    assert refresh(settings)["rows"]["accepted"] == 3
    describe(settings, columns="[[thoi_gian, ngay]]")
    with pytest.raises(SourceError, match="there is no column 'thoi_gian' or 'ngay'"):
        refresh(settings)
