"""The page of the rules: as the service has them, else as the file does, and the preview's form."""

from datetime import UTC, datetime
from typing import Any

import pytest

from recsys.config import ConfigError
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.overview import rules_section
from recsys.orchestration.monitor.rules import ask_for_preview, gather_rules, placements_of
from recsys.settings import Settings
from tests.merchandising.test_rules import RULE, write
from tests.orchestration.monitor_pages import render
from tests.serving.service_process import running_service
from tests.serving.shops import add_model

NOW = datetime.now(UTC)
HIDE = RULE | {"name": "no-lips", "products": {"brands": ["Đẹp"], "max_price": 5000}}
LATER = RULE | {"action": "boost", "start": "2999-01-01T00:00+07:00"}
LATER |= {"name": "later", "reason": "<b>Tết</b>"}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, free_port: int) -> int:
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "let-me")
    return free_port


def page(settings: Settings, **asked: str) -> str:
    found, places = rules_section(settings, NOW), placements_of(settings)
    form = {"user_id": "", "product_id": "", "placement": ""} | asked
    shown, refused = ask_for_preview(settings, asked, 20) if asked else (None, None)
    answer = {"asked": form, "shown": shown, "refused": refused}
    return render(settings, "rules.html", rules=found, placements=places, **answer)


def test_of_a_shop_without_rules_nobody_is_asked(settings: Settings, address: int) -> None:
    assert gather_rules(settings, NOW, 2) is None
    assert "Chưa có quy tắc nào" in page(settings)


def test_without_the_service_the_file_speaks(settings: Settings, address: int) -> None:
    write(settings, HIDE, LATER)
    shown = page(settings)
    assert "Dịch vụ không trả lời" in shown
    for text in ("no-lips", "Ẩn", "Chưa đến lúc", ">Đẹp<", ">5.000<", "lan"):
        assert text in shown, text
    assert "<b>Tết</b>" not in shown
    assert "Không xem trước được" in page(settings, user_id="2")
    write(settings, HIDE | {"action": "push"})
    with pytest.raises(ConfigError, match=r"rules\.0\.action of 'no-lips'"):
        gather_rules(settings, NOW, 2)
    assert "rules.0.action of &#39;no-lips&#39;" in page(settings)


def test_the_page_shows_warnings_and_both_lists_side_by_side(
    settings: Settings, address: int
) -> None:
    add_model(settings, "als_1")
    write(settings, HIDE, LATER)
    with running_service(settings, address, "let-me"):
        found = gather_rules(settings, NOW, 5)
        assert found is not None
        assert found.states == {"active": 1, "waiting": 1, "expired": 0}
        shown = page(settings)
        assert "cửa hàng không có sản phẩm nào thuộc" in shown
        assert "Cocoon" in shown
        assert "Cửa hàng không có tên hoặc mã này" in shown
        assert shown.count("Cần xem lại") == sum(
            row["state"] == "active" and row["name"] in found.warnings for row in found.rows
        )
        previewed = page(settings, user_id="2", placement="home")
        write(settings, HIDE | {"action": "push"})
        still = rules_section(settings, NOW).content
        assert still is not None
        assert [row["name"] for row in still.rows] == ["no-lips", "later"]
    before, _, after = previewed.partition("Có quy tắc")
    assert "Son môi số 5" in before
    assert "Son môi số 5" not in after.partition("Quy tắc nào")[0]
    assert "Bị ẩn" in after
    assert 'value="2"' in previewed
    assert "<option selected>home</option>" in previewed


@pytest.mark.parametrize(
    ("value", "text"), [(6000.0, "6.000"), (0.5, "0,5"), (["a", "b"], "a, b"), ("x", "x")]
)
def test_amounts_read_as_people_write_them(value: Any, text: str) -> None:
    assert Language("vi", UTC).amount(value) == text
