"""CSV as spreadsheets and databases write it."""

import pytest

from recsys.data.dialects import Dialect, Unescaped
from recsys.data.versions import current_version
from recsys.errors import SourceError
from recsys.refresh import RefreshError
from tests.data.shop import quarantined, refresh, write_shop
from tests.refresh.test_nights import describe

HEADER = ["user_id", "product_id", "rating", "cmt_date", "comment"]
TIMES = [f"2025-01-{day:02} 10:00:00" for day in range(1, 15)]


def write(settings, text: str, encoding: str = "utf-8") -> None:
    write_shop(settings, [])
    path = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_bytes(text.encode(encoding, "surrogateescape"))


def table(delimiter: str, times: list[str] = TIMES, rating: str = "5") -> str:
    rows = [[f"u{n}", str(n % 9), rating, time, f"ổn {n}"] for n, time in enumerate(times)]
    return "".join(delimiter.join(fields) + "\n" for fields in [HEADER, *rows])


def comments(settings) -> dict[str, str]:
    rows = current_version(settings).interactions(["user_id", "comment"])
    return dict(zip(rows["user_id"], rows["comment"], strict=True))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(settings, delimiter):
    write(settings, "\ufeff" + table(delimiter).replace("\n", "\r\n"))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    assert comments(settings)["u3"] == "ổn 3"


def test_lines_of_titles_before_the_header_are_passed_over(settings):
    write(settings, "Báo cáo đánh giá tháng 1;;;;\n\n" + table(","))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)


@pytest.mark.parametrize("titles", ["", "Báo cáo;;;;\n", "Báo cáo\n\n"])
@pytest.mark.parametrize(
    "bad", ["one,field,too,many,for,this", "u,1,9,2025-01-02,ổn", 'u,1,5,2025-01-02,"never closed']
)
def test_a_bad_row_is_numbered_as_a_spreadsheet_does(settings, titles, bad):
    text = titles + table(",") + f"{bad}\nv,1,5,2025-01-02,ổn\n"
    write(settings, text)
    assert refresh(settings)["rows"]["accepted"] == len(TIMES) + 1
    (found,) = quarantined(settings).itertuples()
    assert text.splitlines()[found.row - 1] == bad


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_ends_of_csv_end_a_line_of_titles(settings, end):
    write(settings, f"Báo cáo{end}tháng 1\n" + table(","))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)


@pytest.mark.parametrize("bad", [b"\xff,a,b,c,d,e\n", b'v,1,5,2025-01-02,"never closed\n'])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r\n", b"\n\n\n"])
def test_blank_lines_around_a_bad_row_are_no_rows(settings, bad, end):
    header, _, good = table(",").encode().partition(b"\n")
    write_shop(settings, [])
    path = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_bytes((header + b"\n" + bad + good).replace(b"\n", end))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    (found,) = quarantined(settings).itertuples()
    assert found.row == 2


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("rest", [b'"\xaa\xff never closed\n', b"\xfe,\xaa,5,x,y,z\n", b"\xaa\n"])
def test_bytes_that_are_no_text_cost_their_own_rows(settings, rest):
    write_shop(settings, [])
    path = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_bytes(table(",").encode() + rest * 2 + table(",").encode().partition(b"\n")[2])
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    bad = quarantined(settings)
    assert len(bad)
    bad["raw"].str.encode("utf-8")


def test_ratings_may_have_decimal_commas(settings):
    write(settings, table(";", rating="4,5"))
    refresh(settings)
    assert set(current_version(settings).interactions(["rating"])["rating"]) == {4.5}


@pytest.mark.parametrize("form", ["{2}-{1}-{0} 07:01", "{2}.{1}.{0}", "{0}/{1}/{2} 07:01:05"])
def test_dates_that_are_clear_are_read(settings, form):
    times = [form.format("2025", "01", f"{day:02}") for day in range(1, 15)]
    write(settings, table(",", times))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    days = current_version(settings).interactions(["timestamp"])["timestamp"]
    assert sorted(days.dt.tz_convert("Asia/Ho_Chi_Minh").dt.day) == list(range(1, 15))


def test_months_that_come_first_are_read(settings):
    describe(settings, formats="[iso]")
    write(settings, table(",", [f"01/{day:02}/2025 07:01" for day in range(1, 15)]))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    days = current_version(settings).interactions(["timestamp"])["timestamp"]
    assert set(days.dt.month) == {1}


def test_dates_that_might_be_either_are_refused_in_a_sentence(settings):
    describe(settings, formats="[iso]")
    write(settings, table(",", [f"{day:02}/{day + 1:02}/2025" for day in range(1, 10)]))
    with pytest.raises(RefreshError, match="the time cannot be read"):
        refresh(settings)


@pytest.mark.parametrize("above", ["", "Báo cáo đánh giá;;;;\n\n", "Quý 1, 2025\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_columns_of_other_names_are_named_from_their_own_line(settings, above, delimiter):
    write(settings, above + table(delimiter).replace("user_id", "khach"))
    line = above.count("\n") + 1
    expected = f"'user_id'; line {line}, the likeliest header, has: 'khach', 'product_id', 'rating"
    with pytest.raises(SourceError, match=expected):
        refresh(settings)


@pytest.mark.parametrize("above", ["", "Báo cáo, quý 1, HN, HCM, ĐN, CT\n"])
def test_unknown_names_are_shown_and_no_comments(settings, above):
    rows = table(";").replace("ổn", "Thơm, mịn, rẻ, đẹp, nhanh, ổn").partition("\n")[2]
    write(settings, f"{above}Mã KH;Mã SP;Sao;Ngày;{'Ghi chú' * 999}\n{rows}")
    expected = f"line {above.count(chr(10)) + 1}, the likeliest header, has: 'Mã KH', 'Mã SP', 'Sao"
    with pytest.raises(SourceError, match=expected) as raised:
        refresh(settings)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("named", ["UTF-8", "utf8", "U8", "utf-8-sig"])
def test_utf8_is_utf8_however_it_is_named(settings, named):
    describe(settings, path=f"data/raw/viecomrec/data_reviews_purchase.csv\n  encoding: {named}")
    write(settings, "\ufeff" + table(",") + "a,b,c,d,e,\udcff\n", "utf-8")
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)
    assert len(quarantined(settings)) == 1


@pytest.mark.parametrize("title", ["", "x", "xx"])
def test_what_is_looked_at_first_may_end_inside_a_character(settings, title):
    text = f"{title}\n" + table(",").replace("ổn", "ế" * 30_000)
    write(settings, text.replace("\n", "\r"))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)


ESCAPED = """m1,1,5,2025-01-20 10:00:00,"Kem \\"tốt\\" lắm, sẽ mua lại"
m2,2,4,2025-01-21 10:00:00,"Giao \\"nhanh\\""
m3,3,5,2025-01-22 10:00:00,"đường dẫn C:\\\\"
m4,4,5,2025-01-23 10:00:00,\\N
"""


@pytest.mark.parametrize("last", ["", 'm5,5,5,2025-01-24 10:00:00,"hết\\"\n'])
@pytest.mark.parametrize("between", [True, False])
def test_backslash_quotes_are_read_and_cost_no_neighbour(settings, last, between):
    rows = ESCAPED + last
    header, good = table(",").split("\n", 1)
    text = f"{header}\n{rows}{good}" if between else f"{header}\n{good}{rows}"
    write(settings, text)
    refresh(settings)
    found = comments(settings)
    assert found["m1"] == 'Kem "tốt" lắm, sẽ mua lại'
    assert found["m2"] == 'Giao "nhanh"'
    assert found["m3"] == "đường dẫn C:\\"
    assert found["m4"] == ""
    assert {f"u{number}" for number in range(len(TIMES))} <= set(found)
    assert len(quarantined(settings)) + ("m5" in found) == bool(last)


def test_a_backslash_alone_is_a_letter(settings):
    rows = 'p1,1,5,2025-01-20 10:00:00,"C:\\"\np2,2,5,2025-01-20 10:00:00,"a\\b ""c"""\n'
    write(settings, table(",") + rows)
    refresh(settings)
    assert comments(settings)["p1"] == "C:\\"
    assert comments(settings)["p2"] == 'a\\b "c"'


def test_the_description_goes_before_what_is_found(settings):
    describe(settings, path="data/raw/viecomrec/data_reviews_purchase.csv\n  delimiter: ';'")
    write(settings, table(","))
    with pytest.raises(SourceError, match="there is no column 'user_id'"):
        refresh(settings)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_of_a_file_are_unescaped_like_the_whole(size):
    dialect = Dialect(escape="\\")
    text = b'a,"b \\"c\\" \\\\",\\N,"\\\\\\"x"\n'
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    transform = Unescaped(dialect)
    found = b"".join([*(transform(piece) for piece in pieces), transform(b"")])
    assert found.decode() == dialect.doubled(text.decode())


@pytest.mark.parametrize(
    "named", ["delimiter: ','", "skip_lines: 0", "delimiter: ','\n  skip_lines: 0"]
)
def test_escaped_quotes_are_found_whatever_else_is_named(settings, named):
    describe(settings, path=f"data/raw/viecomrec/data_reviews_purchase.csv\n  {named}")
    write(settings, table(",") + ESCAPED)
    refresh(settings)
    assert comments(settings)["m1"] == 'Kem "tốt" lắm, sẽ mua lại'


def test_a_file_may_have_more_lines_of_titles_than_are_looked_through(settings):
    path = "data/raw/viecomrec/data_reviews_purchase.csv\n  skip_lines: 12"
    describe(settings, path=path)
    write(settings, "Báo cáo\n" * 12 + table(","))
    assert refresh(settings)["rows"]["accepted"] == len(TIMES)


def test_backslashes_are_letters_where_the_description_says_so():
    text = 'user_id\n"C:\\"x\n'
    assert Dialect().settled(text, {"user": ("user_id",)}).escape == "\\"
    assert Dialect(escape="").settled(text, {"user": ("user_id",)}).escape == ""
