"""The collection of troubles beside the repository, with the outcome that each README asks for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.data.sources import select_source
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.merchandising.recommending import Wanted, history_of, recommend
from recsys.merchandising.snapshots import NOTHING, load_snapshot
from recsys.quality import write_report
from recsys.reporting import page_in
from recsys.settings import REPOSITORY, Settings
from recsys.training.job import select_best, train_model
from tests.data.shop import published_rows, quarantined, refresh

CASES = REPOSITORY.parent / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")


def load(settings: Settings, reviews: Path, products: Path) -> dict:
    """Refresh the ViEcomRec shop of copies of these files."""
    folder = settings.home / "given"
    folder.mkdir(parents=True, exist_ok=True)
    named = ((reviews, "r.csv"), (products, "p.csv"))
    copies = [shutil.copy(path, folder / name) for path, name in named]
    select_source(settings, "viecomrec", *copies)
    return refresh(settings)


def prices_with_dots(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    found = current_version(settings).products()["price"].tolist()[:5]
    assert found == [189_000, 1_250_000, 95_000, 209_000, 459_000]


def a_catalogue_that_shrinks(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products-full.csv")
    for products in ("products-truncated.csv", "products-header-only.csv"):
        with pytest.raises(InputError, match="products"):
            load(settings, case / "reviews-next-day.csv", case / products)


def a_catalogue_without_names(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    with pytest.raises(InputError, match="products are bad"):
        load(settings, case / "reviews.csv", case / "products-no-names.csv")


def entities(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    table = current_version(settings).products().set_index("product_id")
    assert table.loc["1", "product_name"] == "L'Oréal Kem dưỡng trắng da & ngừa nám 50ml"
    assert table.loc["1", "description"] == "Dành cho da khô\nthành phần rau má"
    assert table.loc["1", "family_id"] == table.loc["2", "family_id"]


def offsets(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    before = len(published_rows(settings))
    assert before == 14
    inbox = settings.staging / "files"
    inbox.mkdir(parents=True)
    shutil.copy(case / "dropped.csv", inbox)
    assert refresh(settings)["rows"]["accepted"] == before + 2


def formulas(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    assert len(quarantined(settings)) == 3
    assert not quarantined(settings)["raw"].str.match(r"[=+\-@]").any()


def a_customer_who_had_everything(settings: Settings, case: Path) -> None:
    version = load(settings, case / "reviews.csv", case / "products.csv")["version_id"]
    (settings.home / "config").mkdir(exist_ok=True)
    shutil.copy(case / "training.yaml", settings.home / "config")
    trained = train_model(settings, "item_knn", version)
    select_best(settings, [trained])
    folder = settings.artifacts / "item_knn" / trained["model_id"]
    snapshot = load_snapshot(settings, folder, trained["model_id"], 20.0)
    wanted = Wanted(5, True, snapshot.catalogue.available, NOTHING)
    for user in ("00-staff", "k00", "k01"):
        history = history_of(snapshot, user, (), [], 0)
        made = recommend(snapshot, history, wanted, 0)
        assert made.ranked.items or user == "00-staff"
        assert len(history.items) == 9 or user != "00-staff"


def backslashes(settings: Settings, case: Path) -> None:
    summary = load(settings, case / "reviews.csv", case / "products.csv")
    rows = published_rows(settings).set_index("user_id")["comment"]
    assert rows["m1"] == 'Kem "tốt" lắm, sẽ mua lại'
    assert rows["m4"] == ""
    assert summary["rows"]["accepted"] + summary["rows"]["quarantined"] == 17
    assert {f"u{number}" for number in range(12)} <= set(rows.index)


def an_empty_day(settings: Settings, case: Path) -> None:
    folder = settings.home / "given"
    folder.mkdir(parents=True)
    for path in case.glob("reviews-*.csv"):
        shutil.copy(path, folder)
    (folder / "reviews-2025-01-03.csv").write_bytes(b"")
    select_source(settings, "viecomrec", folder / "reviews-*.csv", case / "products.csv")
    assert refresh(settings)["passed_over"]


def corrections(settings: Settings, case: Path) -> None:
    load(settings, case / "reviews.csv", case / "products.csv")
    for day in ("monday", "tuesday"):
        inbox = settings.staging / "files"
        inbox.mkdir(parents=True, exist_ok=True)
        shutil.copy(case / f"dropped-{day}.csv", inbox)
        refresh(settings)
    rows = published_rows(settings).set_index("user_id")["rating"]
    assert (rows["f1"], rows["f2"]) == (1, 5)


def mojibake(settings: Settings, case: Path) -> None:
    summary = load(settings, case / "reviews.csv", case / "products.csv")
    report = write_report(settings, summary["version_id"])
    assert "product names are encoded twice" in page_in(report, "en").read_text(encoding="utf-8")
    assert "tên sản phẩm bị mã hóa hai lần" in report.read_text(encoding="utf-8")


def spreadsheets(settings: Settings, case: Path) -> None:
    for name in ("decimal-comma.csv", "semicolons.csv", "title-line.csv"):
        home = Settings(settings.home / name)
        assert load(home, case / name, case / "products.csv")["rows"]["accepted"] > 0, name
    for name, why in (("dashes.csv", "the time cannot be read"), ("utf16.txt", "not utf-8")):
        with pytest.raises(InputError, match=why):  # 01-02 may be January or February
            load(settings, case / name, case / "products.csv")


OUTCOMES: dict[str, Callable[[Settings, Path], None]] = {
    "01-price-dot-thousands": prices_with_dots,
    "03-catalogue-shrinks": a_catalogue_that_shrinks,
    "04-catalogue-all-rows-bad": a_catalogue_without_names,
    "06-html-entities": entities,
    "10-mixed-offsets": offsets,
    "15-formulas-in-quarantine": formulas,
    "17-customer-who-had-everything": a_customer_who_had_everything,
    "24-backslash-quotes": backslashes,
    "26-empty-file-among-daily-ones": an_empty_day,
    "30-corrected-review": corrections,
    "32-mojibake": mojibake,
    "38-excel-vietnam-csv": spreadsheets,
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_outcome_is_the_right_one(settings, name):
    case = CASES / name
    if not case.is_dir():
        pytest.skip(f"{name} is not in the collection")
    OUTCOMES[name](settings, case)
