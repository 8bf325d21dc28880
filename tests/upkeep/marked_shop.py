"""A small shop through all its parts, with customers whose every trace can be told from others'.

Ids, comments and sessions of these are words that stand nowhere else: what a search of all bytes
finds is theirs."""

import random
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient

from recsys.data.staging import append_events, seal_segments
from recsys.drift.job import detect_drift
from recsys.experiments.definitions import Definition
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Experiments
from recsys.health.examination import examine
from recsys.merchandising.audience import audience, write_audience
from recsys.merchandising.exporting import export_lists
from recsys.outcomes.job import compute_outcomes
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.served_lists import seal_lists
from recsys.settings import Settings
from recsys.training.job import plan_training, select_best, train_model
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.data.shop import row, write_shop
from tests.models.shop import ITEMS, taste_interactions

TOKEN = "a-token-for-tests"
WORDS = (
    *("mộc-an", "mộc-bình", "77010203040506", "moc-dung+7@shop.vn", "MOC0007", "mộc_giang"),
    *("8f14e45f-ceea-467f-a0e6-mocha", "mộc'hạnh", "77010203040999"),
)
"""Ids of the marked customers: accents, numbers that files write as floats, an address, a quote."""
STRANGER = "moc-em-stranger"
"""Somebody who only asked, and is in no data."""
MARKED = (*WORDS, STRANGER)
WRITTEN = {
    "77010203040506": "77010203040506.0",
    "mộc-an": " mộc-an ",
    "mộc_giang": unicodedata.normalize("NFD", "mộc_giang"),
    "77010203040999": "7.7010203040999E+13",
}
"""How the shop's files write some of them."""
CATALOGUE = [
    f"p{item},Kem dưỡng {item},Cocoon,Loại {item % 6},10{item}000,Dưỡng ẩm cho da {item % 6}"
    for item in range(ITEMS)
]
_PRAISE = (
    *("kem", "sữa", "gel", "mịn", "thơm", "nhẹ", "dịu", "ẩm", "sáng", "khô", "rít", "bết", "mềm"),
    *("tươi", "bền", "lành", "êm", "mát", "trong", "đầy", "xinh", "rẻ", "nhanh", "chắc", "gọn"),
    *("đẹp", "sạch", "ngon", "tốt", "xịn"),
)
ORDERS = "ma_dong;ngay_dat;ma_khach_hang;ma_san_pham;so_luong;thanh_tien;trang_thai"


def comment_of(customer: str, number: int = 0) -> str:
    """A comment that nobody else writes, and that is not like those of others."""
    words = " ".join(random.Random(f"{customer} {number}").sample(_PRAISE, 9))
    return f"hàng {comment_mark(customer)}{number} {words} của {name_of(customer)}"


def comment_mark(customer: str) -> str:
    """What stands in all of their comments."""
    return f"quyt{MARKED.index(customer)}dao"


def name_of(customer: str) -> str:
    """With which they sign their comments."""
    return f"Nguyễn Thị Mận {'ABCDEFGHIK'[MARKED.index(customer)]}úc"


def session_of(customer: str) -> str:
    return f"phien-{MARKED.index(customer)}-zqx"


def make_shop(settings: Settings, now: datetime, others: Sequence[str] = ()) -> None:
    """Files, refresh, training, service, events, outcomes, reports, lists: everything once.

    `others` are customers and products: they buy themselves, ask for a list and click."""
    _write_files(settings, now, others)
    _refresh(settings, now - timedelta(days=1))
    _train(settings)
    _serve(settings, now, others)
    seal_lists(settings)
    seal_segments(settings)
    _drop(settings, "first.csv", now, number=7)
    (settings.staging / "files" / "bad.csv").write_text(f"what,is,this\n{WORDS[1]},1,2\n")
    _refresh(settings, datetime.now(UTC) + timedelta(seconds=1))
    _drop(settings, "second.csv", now, number=8)
    _send(settings)
    later = datetime.now(UTC) + timedelta(seconds=2)
    compute_outcomes(settings, DataInterval(later - timedelta(hours=1), later))
    evaluate(settings, later)
    detect_drift(settings, DataInterval(now - timedelta(days=1), now))
    examine(settings)
    exports = settings.home / "exports"
    exports.mkdir()
    export_lists(settings, "mail", exports / "mail.parquet")
    found = audience(settings, "p1", 1000, int(now.timestamp()))
    write_audience(found["customers"], exports / "audience.csv")


def reviews(now: datetime, customers: Iterable[str] = WORDS) -> list[str]:
    start = now - timedelta(days=330)
    table = taste_interactions(users=120)
    table["time"] -= table["time"].min()
    rows = [
        row(
            f"u{user}",
            f"p{item}",
            4 + (user + item) % 2,
            time=f"{start + timedelta(seconds=int(time)):%Y-%m-%d %H:%M:%S}",
            comment=f"tốt {user} {item}",
        )
        for user, item, time in zip(table["user"], table["item"], table["time"], strict=True)
    ]
    for customer in customers:
        written = WRITTEN.get(customer, customer)
        for number in range(3):
            days = 20 + number + 11 * WORDS.index(customer)  # at once they would be suspicious
            when = f"{now - timedelta(days=days):%Y-%m-%d %H:%M:%S}"
            rows.append(
                row(written, f"p{number}", 5 - number % 2, when, comment_of(customer, number))
            )
        if customer == WORDS[0]:  # who has most is asked when a model is tried
            rows += [row(written, f"p{20 + at}", 5, f"{start:%Y-%m-%d}", "") for at in range(12)]
        rows.append(row(written, "p9", 99, f"{now:%Y-%m-%d}", comment_of(customer, 9)))
        torn = f"{comment_of(customer, 9)},nhé"
        rows.append(row(written, "p9", 5, f"{now:%Y-%m-%d}", torn))
    return rows


def _write_files(settings: Settings, now: datetime, others: Sequence[str]) -> None:
    rows = [
        row(one, item, 5, f"{now - timedelta(days=30):%Y-%m-%d %H:%M:%S}", f"của {one}")
        for one in others
        for item in ("p0", "p1", *others)
    ]
    listed = [f"{one},Kem số {one},Cocoon,Loại 1,100000,Dưỡng ẩm" for one in others]
    write_shop(settings, [*reviews(now), *rows], [*CATALOGUE, *listed])
    for name, text in (
        ("data.yaml", "source: viecomrec\nevents: [orders]\nmax_invalid_fraction: 0.5\n"),
        ("training.yaml", "model_types: [als]\ntuning: {seconds: 5, trials: 1}\n"),
        ("serving.yaml", "max_events_of_user_per_day: 1\npersonal_lists_seconds: 0\n"),
    ):
        path = settings.home / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    orders = [ORDERS]
    day = f"{now - timedelta(days=10):%d/%m/%Y %H:%M}"
    for number, customer in enumerate(WORDS):
        orders.append(f"{number}-1;{day};{customer};p{number};1;99.000;Đã giao")
        orders.append(f"{number}-2;{day};{customer};p{number};-1;99.000;Đã giao")
    folder = settings.raw / "orders"
    folder.mkdir(parents=True)
    (folder / "2025.csv").write_text("\n".join(orders) + "\n")


def _refresh(settings: Settings, end: datetime) -> None:
    run_refresh(settings, DataInterval(end - timedelta(days=1), end))


def _train(settings: Settings) -> None:
    tasks = plan_training(settings)
    select_best(settings, [train_model(settings, t["model_type"], t["version_id"]) for t in tasks])


def _serve(settings: Settings, now: datetime, others: Sequence[str]) -> None:
    question = {
        "name": "spread",
        "question": "?",
        "variants": [{"name": "today", "share": 0.5}, {"name": "new", "share": 0.5}],
        "primary_metric": "clicks_per_list",
    }
    best = Registry(settings).current_best()
    assert best is not None
    question["variants"][1]["model_id"] = best.model_id
    Experiments(settings).start(Definition.model_validate(question), by="lan")
    environment = ServiceEnvironment(admin_token=TOKEN)
    with TestClient(create_app(settings, environment)) as client:
        for customer in MARKED:
            _visit(client, customer)
        for one in others:
            client.post("/recommend", json={"user_id": one, "topk": 5})
            event = {"user_id": one, "product_id": one, "kind": "click", "event_id": "c-others"}
            client.post("/interactions", json=event)
        client.post("/batch_recommend", json={"user_ids": list(MARKED), "topk": 3})
        client.post("/recommend", json={"user_id": MARKED[0], "topk": 99_999})


def _visit(client: TestClient, customer: str) -> None:
    session = session_of(customer)
    # First without an account, then with one.
    client.post("/recommend", json={"session_id": session, "topk": 5})
    body = {"user_id": customer, "session_id": session, "topk": 5, "placement": "home"}
    answer = client.post("/recommend", json=body).json()
    item = answer["recommendations"][0]["product_id"]
    common = {"product_id": item, "session_id": session}
    told = {"recommendation_id": answer["recommendation_id"], "placement": "home"}
    number = MARKED.index(customer)
    events = [
        {**common, "kind": "view", "event_id": f"guest-{number}"},
        {**common, **told, "kind": "click", "user_id": customer, "event_id": f"click-{number}"},
    ]
    if customer != STRANGER:
        text = comment_of(customer, 5)
        rating = {"kind": "rating", "rating": 5, "comment": text, "event_id": f"rated-{number}"}
        events.append({**common, **rating, "user_id": customer})
        # More of them in a day than is plausible.
        again = {"kind": "rating", "rating": 4, "event_id": f"again-{number}", "user_id": customer}
        events.append({**common, **again})
    sent = client.post("/interactions", json={"events": events})
    assert sent.json()["accepted"] == min(len(events), 3), sent.text
    bad = {**common, "user_id": customer, "event_id": f"bad-{number}", "rating": 17}
    assert client.post("/interactions", json=bad).status_code == 422
    headers = {"Authorization": f"Bearer {TOKEN}"}
    asked = {"user_id": customer, "placement": "home"}
    client.post("/rules/preview", json=asked, headers=headers)


def _send(settings: Settings) -> None:
    """Events that wait for the next refresh."""
    for number, customer in enumerate(WORDS):
        event = {"event_id": f"late-{number}", "user_id": customer, "product_id": "p3"}
        append_events(settings, [{**event, "rating": 4, "comment": comment_of(customer, 6)}])


def _drop(settings: Settings, name: str, now: datetime, number: int) -> None:
    """A file of reviews for the next refresh."""
    folder = settings.staging / "files"
    folder.mkdir(parents=True, exist_ok=True)
    header = "user_id,product_id,rating,cmt_date,comment"
    when = f"{now - timedelta(days=2):%Y-%m-%d %H:%M:%S}"
    rows = [
        row(customer, f"p{number}", 5, when, comment_of(customer, number)) for customer in WORDS
    ]
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
