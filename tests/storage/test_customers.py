"""A customer asks one machine, and what the others handed in is told as well."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.data.staging import append_events, hand_in_segments
from recsys.data.versions import current_version
from recsys.ids import IdRules
from recsys.models.artifacts import load_artifact
from recsys.privacy import Register, ask_to_forget, load_forgotten
from recsys.pseudonyms import load_pseudonyms
from recsys.registry import Registry
from recsys.served_lists import ServedList, hand_in_lists, new_id, write_segment
from recsys.settings import Settings
from recsys.upkeep.customers import export_customers
from recsys.upkeep.forgetting import forget_customers
from tests.data.shop import refresh, row, write_shop
from tests.serving.shops import add_model
from tests.storage.buckets import get_object, keep_versions, objects, put_object, versions

pytestmark = pytest.mark.boots

WHO = "mộc-an"
KNOWN = "17"  # to the models of these shops, whose customers are numbers


def test_an_export_tells_of_all_machines_and_takes_nothing_from_a_refresh(
    join: Callable[[str], Settings], bucket: str, s3_address: str, tmp_path: Path
):
    jobs, front, desk = join("jobs"), join("front"), join("desk")
    write_shop(jobs, [row(WHO, 1), *(row(f"u{user}", user % 5) for user in range(10))])
    version_id = refresh(jobs)["version_id"]
    add_model(jobs, "als_1", data_version=version_id)
    event = {"event_id": "e1", "user_id": WHO, "product_id": "2", "rating": 5}
    append_events(front, [{**event, "session_id": "s-1"}])
    hand_in_segments(front)
    served = ServedList(new_id(1e9), 1e9, WHO, None, "home", "recommend", "als_1", *_REST)
    write_segment(front, "one", [served])
    hand_in_lists(front)
    dropped = f"user_id,product_id,rating,cmt_date,comment\n{WHO},3,4,2025-02-21 10:00:00,được\n"
    put_object(s3_address, bucket, "data/staging/files/drop.csv", dropped.encode())
    waiting = {key for key in objects(s3_address, bucket) if "/staging/" in key}

    folder = tmp_path / "answers"
    folder.mkdir()
    done = export_customers(desk, [WHO], folder, asked_by="lan", to=io.StringIO())
    content = json.loads(Path(done["customers"][WHO]).read_text())
    places = [one["place"] for area in content["kept"] for one in area["records"]]
    folders = {"/".join(place.split("/")[:3]) for place in places}
    assert content["not_read"] == []
    assert folders == {
        "data/staging/seen",
        "data/staging/seen_files",
        "data/served/seen",
        f"data/versions/{version_id}",
    }

    assert {key for key in objects(s3_address, bucket) if "/staging/" in key} == waiting
    assert load_pseudonyms(front).of(WHO) == load_pseudonyms(desk).of(WHO)
    assert [one.asked_by for one in Register(jobs).requests(WHO)] == ["lan"]


def test_all_machines_forget_whom_one_is_asked_to_forget(
    join: Callable[[str], Settings], bucket: str, s3_address: str
):
    keep_versions(s3_address, bucket)
    jobs, front, desk = join("jobs"), join("front"), join("desk")
    write_shop(jobs, [row(KNOWN, 1), *(row(f"u{user}", user % 5) for user in range(10))])
    event = {"event_id": "e1", "user_id": KNOWN, "product_id": "2", "rating": 5}
    append_events(front, [event])
    hand_in_segments(front)
    version_id = refresh(jobs)["version_id"]
    add_model(jobs, "als_1", data_version=version_id)
    append_events(front, [{**event, "event_id": "e2", "product_id": "3"}])
    hand_in_segments(front)
    dropped = f"user_id,product_id,rating,cmt_date,comment\n{KNOWN},3,4,2025-02-21 10:00:00,được\n"
    put_object(s3_address, bucket, "data/staging/files/drop.csv", dropped.encode())
    assert current_version(front).version_id == version_id
    load_artifact(Registry(front).folder(Registry(front).get("als_1"))).close()

    ask_to_forget(desk, [KNOWN], "lan", IdRules())
    assert KNOWN in load_forgotten(front)
    done = forget_customers(jobs)
    assert (done["forgotten"], done["left"]) == (1, [])
    assert current_version(front).version_id != version_id
    with load_artifact(Registry(front).folder(Registry(front).get("als_1"))) as model:
        assert model.path.name == "als_1.1"
        assert model.history_of(KNOWN) is None
    assert not (front.home / "artifacts/cf/als/als_1").exists()
    assert KNOWN not in set(current_version(front).interactions()["user_id"])
    # Those of before are gone, too, and what names nobody has its own still.
    kept = versions(s3_address, bucket)
    assert len([key for key in kept if key.endswith("privacy/forgetting.json")]) == 1
    assert not [key for key in kept if f"versions/{version_id}" in key]
    assert not [key for key in kept if "/als_1/" in key]
    assert len([key for key in kept if key.endswith("cf/registry.json")]) > 1
    for key in objects(s3_address, bucket):
        if not key.endswith((".parquet", ".npy", ".npz")):
            assert f'"{KNOWN}"'.encode() not in get_object(s3_address, bucket, key), key


_REST = (None, "", "", ("p1", "p2"), "mm")
