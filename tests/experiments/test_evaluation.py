"""Experiments of a simulated shop, whose truth is known, judged from the files of the outcomes."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from benchmarks.experiments.sequential import DAYS, Shop, Visits, simulate
from recsys.errors import InputError
from recsys.experiments.definitions import Guardrails
from recsys.experiments.evaluation import evaluate, plan_experiment
from recsys.experiments.guardrails import broken_guardrail, together
from recsys.experiments.page import render_experiment_pages
from recsys.experiments.state import Experiments
from recsys.reporting import page_in, write_pages
from recsys.request_log import Answered, RequestLog
from recsys.settings import Settings
from tests.experiments.test_state import definition
from tests.serving.shops import add_model

SHOP = Shop(400, 2500)
START = datetime(2026, 3, 1, 17, tzinfo=UTC)  # midnight of March 2 at the shop
FIRST = date(2026, 3, 2)


def write_days(
    settings: Settings,
    visits: Visits,
    *,
    name: str = "blend",
    names: tuple[str, str] = ("today", "new"),
    first: date = FIRST,
    fallbacks: tuple[float, float] = (0.1, 0.1),
) -> None:
    """Unit sums as the outcomes job leaves them."""
    rng = np.random.default_rng(0)
    lists = visits.columns["lists"]
    side = visits.side.astype(int)
    table = pd.DataFrame(
        {
            "day": visits.day,
            "experiment": name,
            "variant": np.array(names)[side],
            "unit": visits.user.astype(str),
            **visits.columns,
            "carts": 0,
            "fallbacks": rng.binomial(lists, np.array(fallbacks)[side]),
        }
    )
    for number, rows in table.groupby("day"):
        day = first + timedelta(days=int(number))
        folder = settings.home / "data" / "outcomes" / f"day={day:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.drop(columns="day").to_parquet(folder / "units.parquet", index=False)


@pytest.fixture
def experiments(settings: Settings) -> Experiments:
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    return Experiments(settings)


def after(days: float) -> datetime:
    return START + timedelta(days=days)


def report(settings: Settings, name: str = "blend") -> dict:
    return json.loads((settings.reports / "experiments" / f"{name}.json").read_text())


def read_page(settings: Settings, code: str, name: str = "blend") -> str:
    """What a reader of the page reads."""
    page = page_in(settings.reports / "experiments" / f"{name}.html", code)
    html = page.read_text().split("</style>")[1]
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_better_side_wins_and_stays_the_winner(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=0.3))
    assert evaluate(settings, after(5))["verdicts"] == {"blend": "running"}
    assert "whole week" in report(settings)["en"]
    done = evaluate(settings, after(27.5))
    assert done["verdicts"] == {"blend": "winner"}
    found = report(settings)
    assert (found["winner"], found["verdict"]) == ("new", "winner")
    assert "new is better in clicks per list: new against today is +" in found["en"]
    assert "tốt hơn" in found["vi"]
    [last] = found["running"]["new"][-1:]
    assert last["low"] < 0.3 < last["high"]
    assert last["low"] > 0
    assert found["sample_ratio"]["sound"]
    page = (settings.home / done["page_of_blend"]).read_text()
    for said in ("Is it better?", "<svg", "experiment promote blend", "Đã có bên thắng"):
        assert said in page
    assert experiments.get("blend").running  # a person promotes
    evaluate(settings, after(27.6))
    alerts = (settings.logs / "service" / "alerts.log").read_text()
    assert alerts.count("experiment_decided triggered") == 1


def test_the_metrics_that_do_not_decide_have_intervals_too(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=0.3))
    evaluate(settings, after(27.5))
    found = report(settings)
    courses = {"clicks_per_list": found["running"], **found["others"]}
    for name in ("clicks_per_list", "purchases_per_list", "purchases_per_user", "value_per_user"):
        [last] = courses[name]["new"][-1:]
        assert last["low"] < 0.3 < last["high"], name
        # Narrow at the end as the deciding one is: no clock of another metric widens it.
        width = (last["high"] - last["low"]) / 2
        error = abs(last["value"] - 0.3)
        assert error < width < 1, name
    assert found["others"]["carts_per_list"] == {}  # nobody put anything into a cart
    last = found["split"][-1]
    assert last["day"] == str(FIRST + timedelta(days=27))
    assert last["units"] == [side["units"] for side in found["sides"]]


def test_a_worse_side_makes_the_control_the_winner(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=-0.3))
    evaluate(settings, after(27.5))
    assert report(settings)["winner"] == "today"


def test_sides_that_are_alike_go_on_and_end_without_a_difference(experiments, settings):
    alike = definition(longest_days=28, smallest_effect=0.01)
    experiments.start(alike, by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(2), SHOP, DAYS))
    assert evaluate(settings, after(20))["verdicts"] == {"blend": "running"}
    assert evaluate(settings, after(28))["verdicts"] == {"blend": "no difference"}
    assert "no proof that the sides are equal" in report(settings)["en"]
    information = experiments.get("blend").information
    assert information is not None  # set at the first look that said something, and kept


def test_a_difference_too_small_to_matter_is_none(experiments, settings):
    experiments.start(definition(smallest_effect=0.5), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(2), SHOP, DAYS))
    assert evaluate(settings, after(14))["verdicts"] == {"blend": "no difference"}
    assert "below 50%" in report(settings)["en"]


def test_a_skewed_split_stops_the_experiment(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(3), Shop(900, 6000), DAYS, share=0.46))
    assert evaluate(settings, after(27))["verdicts"] == {"blend": "stopped"}
    ended = experiments.get("blend")
    assert ended.ended_by == "outcomes"
    assert "not divided as intended" in ended.ended_because
    assert "Not as intended" in read_page(settings, "en")
    assert "Not comparable" in read_page(settings, "en")
    assert "experiment_stopped" in (settings.logs / "service" / "alerts.log").read_text()
    assert evaluate(settings, after(28))["verdicts"] == {}


def test_a_side_that_falls_back_more_is_stopped_in_the_first_days(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    visits = simulate(np.random.default_rng(4), SHOP, DAYS)
    write_days(settings, visits, fallbacks=(0.1, 0.4))
    assert evaluate(settings, after(2))["verdicts"] == {"blend": "stopped"}
    assert "new leaves 39.8% of its lists to a fallback" in experiments.get("blend").ended_because


def log(settings: Settings, **models: tuple[int, int]) -> None:
    """Requests and failures of the last minutes, by model."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    written = RequestLog(settings.service_db, settings.logs / "r.log", ZoneInfo("UTC"))
    now = datetime.now(UTC).timestamp() - 60
    for model_id, (requests, failures) in models.items():
        for number in range(requests):
            bad = number < failures
            asked = (now, "recommend", str(number), 10, 2.0, False, None)
            error = "KeyError" if bad else None
            written.add(Answered(*asked, error, model_id, 500 if bad else 200))
    written.close()


def test_errors_stop_an_experiment_and_a_canary_at_once(experiments, settings):
    log(settings, als_1=(200, 0), als_2=(200, 12))
    experiments.start(definition(), by="lan")
    experiments.start_canary("als_2", 0.1, by="model_deployment")
    assert evaluate(settings, datetime.now(UTC))["verdicts"] == {
        "blend": "stopped",
        "canary": "stopped",
    }
    said = "the model als_2 of the side new answers 6.0% of its requests with an error"
    assert said in report(settings)["en"]
    assert "trả lỗi cho 6,0% số yêu cầu" in report(settings)["vi"]
    assert "Broken" in read_page(settings, "en")
    assert experiments.running() == []


def test_a_sound_canary_goes_on_until_its_day_is_over(experiments, settings):
    log(settings, als_1=(200, 1), als_2=(200, 1))
    experiments.start_canary("als_2", 0.1, by="model_deployment")
    now = datetime.now(UTC)
    assert evaluate(settings, now)["verdicts"] == {"canary": "running"}
    assert evaluate(settings, now + timedelta(days=1.1))["verdicts"] == {"canary": "stopped"}


def test_what_a_person_stopped_says_so_with_its_late_outcomes(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(2), SHOP, DAYS))
    experiments.stop("blend", "minh", "the sale begins", after(10))
    assert evaluate(settings, after(12))["verdicts"] == {"blend": "stopped"}
    assert report(settings)["en"] == "ended by minh: the sale begins"
    assert "minh ended it: the sale begins" in read_page(settings, "en")
    assert "Do minh dừng: the sale begins" in read_page(settings, "vi")
    assert report(settings)["days"] == 10
    assert evaluate(settings, after(30))["verdicts"] == {}


def test_an_experiment_without_any_list_runs(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    assert evaluate(settings, after(9))["verdicts"] == {"blend": "running"}
    assert "too few customers" in report(settings)["en"]


@pytest.mark.parametrize(("users", "says"), [(2, False), (400, True)])
def test_whether_customers_are_divided_as_intended_is_said_of_enough_of_them(
    experiments, settings, users, says
):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(7), Shop(users, 2 * users), 3))
    evaluate(settings, after(2))
    assert ("Customers are on the sides as it was intended" in read_page(settings, "en")) == says
    assert ("Too few customers to tell" in read_page(settings, "en")) != says
    assert ("Còn quá ít khách để biết" in read_page(settings, "vi")) != says


def test_the_page_has_the_time_of_the_shop(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    evaluate(settings, after(1.5))
    assert "Bắt đầu 02/03/2026 00:00 lan" in read_page(settings, "vi")
    assert "Viết lúc 03/03/2026 12:00." in read_page(settings, "vi")
    assert "Began 2 Mar 2026, 00:00 lan" in read_page(settings, "en")
    assert report(settings)["started_at"] == "2026-03-01T17:00:00+00:00"


def test_units_that_cannot_be_read_are_named(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(7), SHOP, 2))
    path = settings.outcomes / f"day={FIRST}" / "units.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"units.parquet: cannot be read; run .*--from DAY"):
        evaluate(settings, after(1.5))


def test_a_plan_is_made_from_the_days_before_and_without_the_holdout(settings):
    today = FIRST + timedelta(days=DAYS)
    with pytest.raises(InputError, match="clicks_per_list: the last 0 days"):
        plan_experiment(settings, definition(), today)
    write_days(settings, simulate(np.random.default_rng(5), SHOP, DAYS), name="", names=("", ""))
    found = plan_experiment(settings, definition(smallest_effect=0.2), today)
    assert found.days in (7, 14, 21, 28)
    three = [{"name": str(number), "share": 0.3} for number in range(3)]
    assert plan_experiment(settings, definition(variants=three), today).alpha == 0.025
    write_days(
        settings,
        simulate(np.random.default_rng(5), SHOP, DAYS),
        name="holdout",
        names=("popularity", "popularity"),
    )
    with pytest.raises(InputError, match="the last 0 days"):
        plan_experiment(settings, definition(), today)


def test_few_requests_break_nothing():
    def row(requests: int, errors: float = 0.0, fallbacks: float = 0.0, ms: float = 2.0) -> dict:
        return {
            "requests": requests,
            "error_rate": errors,
            "fallback_rate": fallbacks,
            "avg_latency_ms": ms,
        }

    limits = Guardrails()
    assert broken_guardrail(row(50, errors=0.02), row(1000), limits) is None  # one of fifty
    found = broken_guardrail(row(50, errors=0.2), None, limits)
    assert found == ("error_rate", 0.2, limits.max_error_rate)
    assert broken_guardrail(row(60, fallbacks=0.25), row(60, fallbacks=0.1), limits) is None
    assert broken_guardrail(row(6000, fallbacks=0.25), row(6000, fallbacks=0.1), limits)
    assert broken_guardrail(row(60, ms=9), row(60), limits)
    assert broken_guardrail(row(49, errors=1.0), row(60), limits) is None
    both = together([row(100, errors=0.1), row(300)])
    assert (both["requests"], both["error_rate"]) == (400, pytest.approx(0.025))
    assert together([]) is None


def test_a_job_whose_clock_is_behind_says_that_it_is_too_early(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    assert evaluate(settings, after(-0.01))["verdicts"] == {"blend": "running"}
    assert evaluate(settings, after(-3))["verdicts"] == {"blend": "running"}


def test_what_a_side_wins_by_is_said_as_the_verdict_is_made(experiments, settings):
    """The interval left 0 once, on some day since the first week: it has not to do so today."""
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=0.3))
    evaluate(settings, after(27.5))
    found = report(settings)
    found["running"]["new"][-1] |= {"low": -0.1, "value": 0.1, "high": 0.3}
    page = settings.reports / "experiments" / "blend.html"
    write_pages(page, render_experiment_pages(found, page, ZoneInfo("UTC")))
    assert "new Better Better than today: +10.0% (-10.0% to +30.0%)." in read_page(settings, "en")
    found["days"] = 6.5
    write_pages(page, render_experiment_pages(found, page, ZoneInfo("UTC")))
    assert "new Too early" in read_page(settings, "en")


@pytest.mark.parametrize("old", ['{"verdict": "winner", "vi": "x"}', '{"verdict": 7}', "[]", "{"])
def test_a_page_leads_to_one_of_earlier_code_that_has_one_language(experiments, settings, old):
    experiments.start(definition("first"), by="lan", now=START)
    experiments.stop("first", "minh" if "[" in old else "outcomes", "enough", after(3))
    experiments.start(definition("without-page"), by="lan", now=after(3))
    experiments.stop("without-page", "minh", "enough", after(4))
    folder = settings.reports / "experiments"
    folder.mkdir(parents=True)
    (folder / "first.html").write_text("<h1>both languages</h1>")
    (folder / "first.json").write_text(old)
    experiments.start(definition(), by="lan", now=after(20))
    evaluate(settings, after(21))
    for code in ("vi", "en"):
        html = page_in(folder / "blend.html", code).read_text()
        assert re.findall(r'<ul class="weeks"><li><a href="([^"]*)">', html) == ["first.html"]
        assert "without-page" not in html
    states = {"w": "Has a winner", "[": "Ended"}
    state = next((name for key, name in states.items() if key in old), "")
    assert f"2 Mar 2026 – 5 Mar 2026 first {state}".strip() in read_page(settings, "en")
    assert (folder / "first.html").read_text() == "<h1>both languages</h1>"


def test_who_has_won_and_is_deployed_needs_no_promotion(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=-0.3))
    evaluate(settings, after(27.5))
    assert "experiment stop blend" in read_page(settings, "en")
    assert "experiment promote" not in read_page(settings, "en")


def test_guardrails_that_nobody_can_watch_are_not_said_to_be_kept(experiments, settings):
    experiments.start(definition(), by="lan", now=START)
    evaluate(settings, after(1))
    assert "Guardrails Watched in part" in read_page(settings, "en")
    log(settings, als_1=(200, 0), als_2=(200, 0))
    evaluate(settings, after(1.1))
    assert "Guardrails No stop" in read_page(settings, "en")
