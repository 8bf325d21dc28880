import numpy as np
import pytest

from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.evaluation.ranking import rank_targets
from recsys.models.hybrid import COMPONENTS, Hybrid
from recsys.training.blending import BlendTrials
from tests.models.shop import ITEMS, publish_shop, taste_interactions


@pytest.mark.parametrize(
    "weights",
    [
        {"item_knn": 1.0, "als": 0.5, "recent_popularity": 0.2, "content": 0.3},
        {"item_knn": 1.0, "als": 0.0, "recent_popularity": 2.0, "content": 0.0},
        {"item_knn": 0.5, "als": 0.0, "linear": 0.4, "self_attention": 2.0, "content": 0.1},
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_trial_ranks_like_the_model_itself(settings, weights, temperature):
    publish_shop(settings, taste_interactions())
    data = read_leave_one_out(current_version(settings))
    content = np.eye(6, dtype=np.float32)[np.arange(ITEMS) % 6]
    small = {"self_attention": {"dimensions": 8, "epochs": 1}}
    fitted = {
        name: family.create(small.get(name, {}), 1).fit(data.training, ITEMS)
        for name, family in COMPONENTS.items()
    }

    def blend(chosen, at=temperature):
        model = Hybrid.of_fitted(fitted, chosen, 2.0, at).use_content(content)
        return model.count_purchases(data.training, ITEMS)

    trials = BlendTrials(blend(dict.fromkeys(weights, 1.0), 1.0), data.validation)
    expected = rank_targets(blend(weights), data.validation)
    assert trials.ranks(blend(weights)).ranks.tolist() == expected.ranks.tolist()
