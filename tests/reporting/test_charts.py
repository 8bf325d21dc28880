"""The pictures of reports as SVG."""

import re

import pytest

from recsys.reporting.charts import Line, Row, columns, curves, rows


def test_what_others_wrote_is_no_markup() -> None:
    odd = '<script>"&'
    for picture in (
        rows(odd, [Row(odd, 1, odd, foreign=True)]),
        columns(odd, [odd], [(odd, [1.0]), (odd, [2.0])], lambda _: odd),
        curves(odd, [odd, odd], [Line(odd, [1, 2]), Line(odd, [1, 2])], lambda _: odd),
    ):
        assert "<script" not in picture
        assert "&lt;script&gt;&#34;&amp;" in picture


def test_a_long_number_at_the_left_has_room() -> None:
    picture = curves("x", ["a", "b"], [Line("x", [0, 5_000_000])], lambda value: f"{value:,.0f}")
    ends = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">([\d,]+)</text>', picture)
    for end, text in ends:
        assert float(end) - 6.2 * len(text) >= 0, text


def test_bars_begin_at_zero_to_both_sides() -> None:
    picture = rows("x", [Row("up", 3, "3"), Row("down", -1, "-1", low=-2, high=0)])
    bars = re.findall(r'<rect class="s1" x="([\d.]+)" y="2" height="8" width="([\d.]+)"', picture)
    assert [tuple(map(float, bar)) for bar in bars] == [(40, 60), (20, 20)]
    assert 'x1="0.00" y1="6.00" x2="40.00"' in picture  # the interval from the lowest on


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0], [None, None], [1e-9, 2e-9], [7e12, 1]])
def test_any_values_make_a_picture(values: list[float | None]) -> None:
    days = [str(n) for n in range(len(values))]
    picture = curves("x", days, [Line("x", values, values, values)], str)
    assert picture.startswith("<svg")
    assert "nan" not in picture
    counted = [one or 0.0 for one in values]
    assert "nan" not in columns("x", days, [("x", counted)], str)
    assert "nan" not in rows("x", [Row("x", one, "x") for one in counted])


def test_what_is_below_zero_has_its_place() -> None:
    line = Line("x", [-0.1, 0.2], [-0.9, 0.1], [0.1, 0.3])
    form = "{:+.0%}".format
    picture = curves("x", ["a", "b"], [line], form, bottom=-0.2, top=0.4, zone=(-0.05, 0.05))
    found = re.findall(r'y="([\d.]+)" text-anchor="end">([^<]+%)<', picture)
    heights = {text: float(high) - 3.5 for high, text in found}
    assert list(heights) == ["-20%", "+0%", "+20%", "+40%"]
    [zero] = re.findall(r'<line class="axis" x1="[\d.]+" y1="([\d.]+)"', picture)
    assert float(zero) == pytest.approx(heights["+0%"], abs=0.06)
    zone = r'class="open" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"'
    [(above, size)] = re.findall(zone, picture)
    assert float(above) < float(zero) < float(above) + float(size)
    lowest = max(float(high) for high in re.findall(r"[\d.]+,([\d.]+)", picture))
    assert lowest == pytest.approx(heights["-20%"], abs=0.06)  # what is lower ends at the edge


def test_a_long_curve_has_no_dots_but_for_days_that_stand_alone() -> None:
    values = [1.0, None, *([2.0] * 200)]
    picture = curves("x", [str(n) for n in range(202)], [Line("x", values)], str)
    assert picture.count("<circle") == 1


def test_a_gap_parts_a_curve_and_its_band() -> None:
    line = Line("x", [1, None, 2, 3], [0, None, 1, 2], [2, None, 3, 4])
    picture = curves("x", list("abcd"), [line], str)
    assert picture.count("<polyline") == 2
    assert picture.count("<polygon") == 2
