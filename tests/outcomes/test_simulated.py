"""The job against the truth of simulated traffic, which is found by other code."""

from datetime import timedelta

import pandas as pd
import pandas.testing as pdt

from recsys import schema
from recsys.outcomes.daily import figured_days, read_day, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.served_lists import id_text
from recsys.settings import Settings
from recsys.simulation import Disorder, truth_of
from recsys.simulation.files import truth_table, write_traffic
from tests.simulation.worlds import traffic

COUNTED = ["click", "view", "cart", "purchase"]


def test_late_repeated_doubled_and_strange_events_give_the_simulators_truth(
    settings: Settings,
) -> None:
    disorder = Disorder(late=0.1, repeated=0.2, doubled=0.3, strange=0.1, robots=1)
    made = traffic(2_000, seed=5, disorder=disorder, days=3)
    config = settings.home / "config" / "outcomes.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"robots: [{', '.join(made.customer_ids[-made.robots :])}]\n")
    write_traffic(settings, made)
    until = made.period.until + timedelta(days=8)
    compute_outcomes(settings, DataInterval(until - timedelta(hours=1), until))
    days = figured_days(settings)
    found = pd.concat([read_day(settings, day, "outcomes").assign(day=day) for day in days])
    found[schema.RECOMMENDATION] = [id_text(one) for one in found["list_id"]]
    truth = truth_table(truth_of(made))
    truth = truth[truth[schema.KIND].isin(COUNTED)]
    names = [schema.RECOMMENDATION, schema.PRODUCT, schema.KIND, schema.EVENT]
    told = (
        table[names].astype(str).sort_values(names, ignore_index=True) for table in (found, truth)
    )
    pdt.assert_frame_equal(*told)
    assert len(truth) > 100
    totals = truth_of(made).totals()
    columns = ["lists", "users", "clicks", "carts", "purchases", "value"]
    counted = pd.DataFrame([read_totals(settings, day) for day in days], index=pd.Index(days))
    counted = counted[counted["lists"] > 0]
    assert [str(day) for day in counted.index] == [f"{day:%Y-%m-%d}" for day in totals.index]
    for column in columns:
        assert counted[column].tolist() == totals[column].tolist(), column
