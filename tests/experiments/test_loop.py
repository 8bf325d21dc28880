"""From a customer's request to what the experiment's report says of it, through every part."""

import json
from datetime import UTC, datetime, timedelta

from recsys.experiments.definitions import Assignment
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Experiments
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.served_lists import seal_lists
from tests.experiments.test_state import definition
from tests.serving.shops import add_model
from tests.serving.test_experiments import service

CUSTOMERS = [f"customer-{number}" for number in range(24)]


def test_a_click_counts_for_the_side_that_made_the_list(settings):
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    experiments = Experiments(settings)
    experiments.start(definition(), by="lan")
    sides = Assignment(experiments.running())
    ours = {user: sides.assign(user).variant for user in CUSTOMERS}
    clicked = dict.fromkeys(("today", "new"), 0)
    with service(settings) as client:
        for number, user in enumerate(CUSTOMERS):
            answer = client.post("/recommend", json={"user_id": user}).json()
            if number % 3 == 0:
                event = {
                    "event_id": f"click-{number}",
                    "user_id": user,
                    "product_id": answer["recommendations"][0]["product_id"],
                    "kind": "click",
                    "recommendation_id": answer["recommendation_id"],
                }
                sent = client.post("/interactions", json=event)
                assert sent.status_code == 200, sent.text
                clicked[ours[user]] += 1
    seal_lists(settings)
    now = datetime.now(UTC) + timedelta(seconds=1)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))
    assert evaluate(settings, now)["verdicts"] == {"blend": "running"}
    report = json.loads((settings.reports / "experiments" / "blend.json").read_text())
    for side in report["sides"]:
        count = list(ours.values()).count(side["variant"])
        assert (side["units"], side["lists"]) == (count, count)
        assert round(side["rates"]["clicks_per_list"] * count) == clicked[side["variant"]]
    assert sum(clicked.values()) == 8
