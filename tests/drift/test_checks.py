import numpy as np
import pandas as pd

from recsys.drift.checks import find_campaigns, sentence_keys
from tests.drift.shop import events

SENTENCE = "Sử dụng dễ dàng, rất thoải mái"
OTHERS = [f"mỗi người một ý kiến khác nhau {number}" for number in range(40)]


def found(comments: list[list[str]], weekly: int = 60):
    shop = events([weekly] * len(comments), comments=comments)
    assert shop.comments is not None
    return shop, find_campaigns(shop, sentence_keys(shop.comments))


def test_one_sentence_from_many_customers_in_one_week_is_a_campaign() -> None:
    shop, (copied, sentences) = found([OTHERS] * 8 + [[SENTENCE] * 20 + OTHERS])
    assert copied.sum() == 20
    assert (shop.weeks[copied] == shop.weeks.max()).all()
    assert sentences[0]["text"] == SENTENCE
    assert sentences[0]["users"] == 20


def test_spelling_does_not_hide_it() -> None:
    variants = [SENTENCE, SENTENCE.upper() + "!!!", "su dung de dang , rat thoai mai"]
    _, (copied, sentences) = found([OTHERS] * 8 + [[*variants, *OTHERS[:9]]])
    assert copied.sum() == 15
    assert len(sentences) == 1


def test_a_phrase_of_every_week_is_no_campaign() -> None:
    _, (copied, _) = found([[SENTENCE, *OTHERS[:3]]] * 9)
    assert not copied.any()


def test_short_texts_are_nobodys_campaign() -> None:
    _, (copied, _) = found([OTHERS] * 8 + [["tốt", "ok"]])
    assert not copied.any()


def test_later_weeks_do_not_change_what_was_found() -> None:
    comments = [OTHERS] * 8 + [[SENTENCE] * 20 + OTHERS]
    _, (early, _) = found(comments)
    shop = events([60] * 10, comments=[*comments, OTHERS], seed=0)
    assert shop.comments is not None
    keys = sentence_keys(shop.comments)
    upto = shop.weeks < shop.weeks.max()
    part = shop.where(upto)
    assert find_campaigns(part, keys[upto])[0].sum() == early.sum()


def test_texts_without_letters_or_of_nothing_have_no_key() -> None:
    keys = sentence_keys(pd.Series(["", None, "🙂🙂🙂", "!!!", SENTENCE, SENTENCE]))
    assert keys[:4].tolist() == [-1] * 4
    assert keys[4] == keys[5] >= 0
    assert sentence_keys(pd.Series([], dtype=object)).dtype == np.int64
