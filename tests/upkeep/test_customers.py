"""What is kept of a customer: every place is declared, and the export has all that is there."""

import gzip
import io
import json
import sqlite3
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.data.staging import append_events
from recsys.errors import InputError
from recsys.personal import Doubtful, PersonalData, Record, Sought, is_unmistakable
from recsys.privacy import Register, load_forgotten
from recsys.pseudonyms import load_pseudonyms
from recsys.request_log import Answered, RequestLog
from recsys.settings import Settings
from recsys.traces import in_files
from recsys.upkeep.customers import export_customers
from recsys.upkeep.personal import NOBODY, PERSONAL, WHATEVER_ELSE, find, sought
from tests.documented import table
from tests.upkeep.byte_search import search
from tests.upkeep.marked_shop import MARKED, WORDS, comment_mark, make_shop, name_of, session_of

TEXTS = {
    **{customer: customer for customer in MARKED},
    **{session_of(customer): customer for customer in MARKED},
    **{comment_mark(customer): customer for customer in MARKED},
    **{name_of(customer): customer for customer in MARKED},
}
"""What is searched for -> whose it is. Comments begin with their mark."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Settings:
    settings = Settings(tmp_path_factory.mktemp("marked") / "home")
    make_shop(settings, datetime.now(UTC))
    return settings


@pytest.fixture(scope="module")
def places(shop) -> dict[str, set[str]]:
    """Where the bytes have something of whom."""
    names = load_pseudonyms(shop)
    whose = {**TEXTS, **{names.of(customer): customer for customer in MARKED}}
    found = search(shop.home, whose).items()
    return {place: {whose[text] for text in texts} for place, texts in found}


@pytest.fixture(scope="module")
def kept(shop) -> list[tuple[PersonalData, Record]]:
    found = list(find(shop, sought(shop, MARKED)))
    assert [one for _, one in found if not isinstance(one, Record)] == []
    return found


def test_every_place_with_personal_data_is_declared(places):
    declared = [one for one in PERSONAL if one not in (NOBODY, WHATEVER_ELSE)]
    undeclared = [at for at in places if not any(one.covers(as_declared(at)) for one in declared)]
    assert undeclared == []
    assert len(places) > 30


def test_every_declaration_is_needed(places, shop):
    """A declaration of what is nowhere would promise too much; here the shop has all but these."""
    idle = {
        one.what for one in PERSONAL if not any(one.covers(as_declared(place)) for place in places)
    }
    assert idle == {
        "scratch of running jobs",
        "records of runs and of alerts",
        "reports",
        "Airflow's records and task logs",
        "ids of those who are to be forgotten",
        "the register of requests, the log of it, and the key of pseudonyms",
        "figures, products, settings and pages, which name no customer",
    }


def test_all_that_the_bytes_have_is_in_the_export_and_nothing_else(places, kept):
    told: dict[str, set[str]] = {}
    for _, record in kept:
        told.setdefault(record.place.partition("#")[0], set()).add(record.customer)
    there: dict[str, set[str]] = {}
    for place, whose in places.items():
        there.setdefault(place.partition(":")[0], set()).update(whose)
    assert told == there


def test_what_is_found_is_told_once_by_the_first_that_covers_it(kept):
    for declared, record in kept:
        first = next(one for one in PERSONAL if one.covers(record.place) and one.find)
        assert (declared.what, record.place) == (first.what, record.place)


def test_logs_name_nobody_by_id(shop):
    assert search(shop.logs, TEXTS) == {}


def test_requests_of_before_there_were_pseudonyms_are_found(settings):
    request = Answered(0.0, "recommend", "00123", 10, 1.0, False, None, None, "als_1", 200)
    log_file = settings.logs / "service" / "recommender.log"
    log = RequestLog(settings.service_db, log_file, ZoneInfo("UTC"))
    for user in ("00123", "123", "an", "00123 "):
        log.add(request._replace(user_id=user))
    log.close()
    found = [one for _, one in find(settings, sought(settings, ["00123"]))]
    assert [one.place for one in found] == [
        *["logs/service_metrics.db#requests"] * 2,
        *["logs/service/recommender.log"] * 2,
    ]
    assert [one.content["line"] for one in found[2:]] == [1, 4]


def test_the_export_tells_what_a_customer_wrote_bought_and_saw(shop, kept):
    mine = [record for _, record in kept if record.customer == WORDS[0]]
    text = json.dumps([record.content for record in mine], ensure_ascii=False)
    for number in (0, 1, 2, 5, 6, 7, 8, 9):
        assert f"{comment_mark(WORDS[0])}{number}" in text
    by_place = {record.place: record.content for record in mine}
    assert by_place["data/raw/orders/2025.csv"]["value"] == "99.000"
    [model] = [content for place, content in by_place.items() if place.endswith("ids.npy")]
    assert {"p0", "p1", "p2", "p20"} <= set(model["products"])
    assert any(place.endswith("/manifest.json") for place in by_place)


def test_what_was_done_before_logging_in_is_theirs(kept):
    views = [record for _, record in kept if record.content.get("event_id") == "guest-3"]
    assert {one.customer for one in views} == {MARKED[3]}
    assert not any("user_id" in one.content for one in views if "#" not in one.place)


def test_a_session_of_two_customers_is_nobodys(settings):
    events = [
        {"event_id": f"{user}-{session}", "user_id": user, "session_id": session}
        for user, session in (("an", "s1"), ("an", "s2"), ("bình", "s2"), ("", "s1"), ("", "s2"))
    ]
    append_events(settings, [{**one, "product_id": "p1", "kind": "view"} for one in events])
    assert sought(settings, ["an"]).sessions == {"s1": "an"}
    found = [one.content["event_id"] for _, one in find(settings, sought(settings, ["an"]))]
    assert sorted(found) == ["-s1", "an-s1", "an-s2"]


def test_an_export_is_json_with_why_and_until_when(shop, tmp_path):
    done = export(shop, [WORDS[2]], tmp_path)
    [file] = done["customers"].values()
    content = json.loads(Path(file).read_text())
    assert content["customer"] == WORDS[2]
    assert content["records"] == sum(len(area["records"]) for area in content["kept"]) > 30
    assert content["not_read"] == []
    areas = {area["what"]: area for area in content["kept"]}
    assert areas["requests to the service"]["until"].startswith("30 days")
    assert all(area["why"] and area["until"] for area in content["kept"])
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert WORDS[2] not in Path(file).name


def test_several_customers_get_a_file_each_with_nothing_of_the_others(shop, tmp_path):
    done = export(shop, MARKED, tmp_path)
    for customer, file in done["customers"].items():
        others = {text for text, whose in TEXTS.items() if whose != customer}
        found = search_file(Path(file), others)
        assert found == set()
        assert json.loads(Path(file).read_text())["customer"] == customer


def test_of_somebody_unknown_nothing_is_kept(shop, tmp_path):
    done = export(shop, ["who-is-this"], tmp_path)
    assert done["records"] == 0
    [file] = done["customers"].values()
    content = json.loads(Path(file).read_text())
    assert (content["kept"], content["records"]) == ([], 0)
    [request] = content["requests"]
    assert (request["kind"], request["asked_by"]) == ("export", "lan")


def test_the_register_and_the_audit_log_name_nobody(shop, tmp_path):
    export(shop, [WORDS[0]], tmp_path)
    mine = Register(shop).requests(WORDS[0])
    assert mine[-1].proof["records"] > 0
    assert mine[-1].asked_at < mine[-1].done_at < mine[-1].due_at
    audit = (shop.logs / "customer_audit.log").read_text()
    assert load_pseudonyms(shop).of(WORDS[0]) in audit
    for folder in (shop.home / "data" / "privacy", shop.logs):
        found = search(folder, [WORDS[0]])
        assert not [name for name in found if "audit" in name or "requests.json" in name]
    assert (shop.home / "data" / "privacy").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "given", [[""], ["undefined"], ["a\nb"], [], ["guest"], ["n***a"], ["KH01", f"~{'0a' * 16}"]]
)
def test_what_is_no_id_of_one_customer_is_refused(settings, tmp_path, given):
    said = r"there is no user|not an id|expected 1 to|many people|is a pseudonym"
    with pytest.raises(InputError, match=said):
        export(settings, given, tmp_path)
    assert not (settings.home / "data" / "privacy" / "requests.json").exists()


def test_an_export_is_not_asked_for_by_what_looks_like_a_field(settings, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    for wrong in ("lan | customer=~1", "x" * 5000):
        answer = CliRunner().invoke(app, ["customer", "export", "77", "--by", wrong])
        assert isinstance(answer.exception, InputError)
    assert Register(settings).requests() == []


def test_the_command_prints_the_export_and_the_register(settings, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    answer = CliRunner().invoke(app, ["customer", "export", "77.0", "--by", "minh"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["customer"] == "77"
    assert "Nothing is kept" in answer.stderr
    listed = CliRunner().invoke(app, ["customer", "requests", "77", "--json"])
    [request] = json.loads(listed.stdout)
    assert (request["asked_by"], request["kind"]) == ("minh", "export")
    assert CliRunner().invoke(app, ["customer", "new-key"]).exit_code == 0
    assert len(json.loads(CliRunner().invoke(app, ["customer", "requests", "--json"]).stdout)) == 1
    # What was named with the key of before is still found.
    listed = CliRunner().invoke(app, ["customer", "requests", "77", "--json"])
    assert len(json.loads(listed.stdout)) == 1


def test_commands_forget_and_readmit(settings, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    answer = CliRunner().invoke(app, ["customer", "forget", "77.0", "KH01", "--by", "minh"])
    assert answer.exit_code == 0, answer.output
    assert [one["number"] for one in json.loads(answer.stdout)] == [1, 2]
    assert "77" in load_forgotten(settings)
    found = {one.place: one.content for _, one in find(settings, sought(settings, ["77"]))}
    assert found["data/privacy/forgetting.json"]["id"] == "77"
    answer = CliRunner().invoke(app, ["customer", "readmit", "77", "--by", "minh"])
    assert json.loads(answer.stdout)[0]["kind"] == "readmit"
    assert "77" not in load_forgotten(settings)
    assert "KH01" in load_forgotten(settings)


def test_files_that_cannot_be_read_are_named(shop, tmp_path):
    broken = shop.home / "exports" / "broken.parquet"
    broken.write_bytes(b"PAR1 and then nothing that makes sense")
    try:
        done = export(shop, [WORDS[0]], tmp_path)
    finally:
        broken.unlink()
    [file] = done["customers"].values()
    [unread] = json.loads(Path(file).read_text())["not_read"]
    assert unread["place"] == "exports/broken.parquet"
    assert done["unread"] == 1


@pytest.mark.parametrize(
    ("line", "whose", "perhaps"),
    [
        ("user_id=12, topk=5", {"12"}, set()),
        ("user_id=123, topk=5", set(), set()),
        ('{"user_id": "an-bình"}', {"an-bình"}, set()),
        ("an-bình-2 and x.an-bình", set(), set()),
        ("it was 12.", set(), {"12"}),
        ("12.0|p9|4", set(), {"12"}),
        ("12.5|p9|4", set(), set()),
        ("12@shop.vn", set(), set()),
        ("a of (12) and an-bình: both", {"an-bình"}, {"12"}),
        ("No such user ID: 12 (12 tries)", {"12"}, set()),
        ('"{\\"customer\\": \\"12.0\\"}"', {"12"}, set()),
        ("mã khách hàng: 12", {"12"}, set()),
        ('retries=12, "rows": 12', set(), set()),
        ("customers=12", set(), {"12"}),
        ("last_user_id=12", {"12"}, set()),
        ("sample user 12 said mai", set(), {"12", "mai"}),
        ("customer=mai", {"mai"}, set()),
        ("7.70102030405E+13|p9", {"77010203040500"}, set()),
        ("7.701020304051E+13|1.2E+01", set(), set()),
    ],
)
def test_an_id_in_a_line_is_found_where_it_is_nothing_else(settings, line, whose, perhaps):
    path = settings.home / "logs" / "some.log"
    path.parent.mkdir(parents=True)
    path.write_text(f"nothing\n{line}\nnothing\n")
    found = list(in_files(settings, Sought.of(["12", "an-bình", "mai", "77010203040500"]), [path]))
    records = [one for one in found if isinstance(one, Record)]
    assert {one.customer for one in records} == whose
    assert {one.content["line"] for one in records} <= {2}
    assert {one.customer for one in found if isinstance(one, Doubtful)} == perhaps


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("3", False), ("2025-01-01", False), ("12345678901", False), ("u12", False)),
        *(("khách", False), ("recommend", False)),
        *(("77010203040506", True), ("KH01", True), ("mộc-an", True)),
    ],
)
def test_which_ids_are_unmistakable(name, expected):
    assert is_unmistakable(name) is expected


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("exports/KH01/a.csv", "exports/.../a.csv"),
        ("exports/answer-KH01.csv#t", "exports/..."),
        ("exports/12_2.csv", "exports/..."),
        ("data/outcomes/day=2026-12-12/KH012.csv", "data/outcomes/day=2026-12-12/KH012.csv"),
    ],
)
def test_places_are_told_without_the_names_of_customers(place, expected):
    assert Sought.of(["KH01", 12]).nameless(place) == expected
    assert Sought.of([]).nameless(place) == place


@pytest.mark.parametrize("kind", ["csv", "parquet", "db"])
def test_tables_of_unknown_origin_tell_customers_by_their_columns(settings, kind):
    frame = pd.DataFrame(
        {"user_id": [3, 4, 5, 6], "count": [4, 3, 7, 3], "note": ["x", "y", "3", "KH01"]}
    )
    path = settings.home / "exports" / f"mine.{kind}"
    path.parent.mkdir(parents=True)
    if kind == "csv":
        frame.to_csv(path, index=False, sep=";", encoding="utf-8-sig")
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        with sqlite3.connect(path) as database:
            frame.to_sql("t", database, index=False)
        database.close()
    found = list(in_files(settings, Sought.of(["3", "KH01"]), [path]))
    told = {(one.customer, int(one.content["user_id"])) for one in found if type(one) is Record}
    assert told == {("3", 3), ("KH01", 6)}
    assert {one.customer for one in found if isinstance(one, Doubtful)} == {"3"}


def test_a_row_that_could_not_be_used_is_its_customers(settings):
    path = settings.home / "data" / "quarantine" / "v1.csv"
    path.parent.mkdir(parents=True)
    rows = ['"a.csv",3,"the rating is outside 1-5","3.0 | p9 | 99"', '"a.csv",4,"?","4 | 3 | 99"']
    path.write_text("\ufeff" + "\n".join(['"file","row","reason","raw"', *rows]) + "\n")
    found = [one for _, one in find(settings, sought(settings, ["3"]))]
    assert [one.content["row"] for one in found if isinstance(one, Record)] == [3]
    assert [one for one in found if isinstance(one, Doubtful)] == [("3", "data/quarantine/v1.csv")]


def test_tables_that_make_no_sense_do_not_stop_an_export(settings):
    for place in ("data/quarantine/own.csv", "exports/twice.csv"):
        path = settings.home / place
        path.parent.mkdir(parents=True)
        path.write_text("user_id,user_id\nKH01,2\n")
    (settings.home / "exports" / "latin.csv").write_bytes("user_id,n\nKH01,é\n".encode("latin-1"))
    found = [one for _, one in find(settings, sought(settings, ["KH01"]))]
    assert [one.place for one in found if isinstance(one, Record)] == [
        "data/quarantine/own.csv",
        "exports/twice.csv",
    ]
    assert [one.place for one in found if not isinstance(one, Record)] == ["exports/latin.csv"]


def test_the_export_of_a_number_holds_only_the_customers_records(tmp_path):
    settings = Settings(tmp_path / "home")
    now = datetime.now(UTC)
    make_shop(settings, now, others=("3",))
    add_airflow(settings)
    export(settings, ["3"], tmp_path)
    [file] = (tmp_path / "export").iterdir()
    text = file.read_text()
    content = json.loads(text)
    assert content["not_read"] == []
    assert not [secret for secret in SECRETS if secret in text]
    records = [one for area in content["kept"] for one in area["records"]]
    assert content["records"] == len(records) > 10
    assert not [one for one in records if not names(one, "3")]
    by_place = {one["place"]: one for one in records}
    assert "data/live_events.db#daily" in by_place
    airflow = {place: one for place, one in by_place.items() if place.startswith(".airflow")}
    assert airflow == {
        ".airflow/airflow.db#xcom": {
            "place": ".airflow/airflow.db#xcom",
            "dag_id": "d",
            "key": "k",
            "value": '{"user_id": "3"}',
        }
    }
    places = " ".join([*by_place, *content["doubtful"]])
    for nobody in (
        "slices",
        "outcomes/day=2026/products",
        "outcome_metrics",
        "config/",
        ".html",
        "data_product",
    ):
        assert nobody not in places
    assert ".airflow/airflow.db#connection" not in places


SECRETS = ("db.secret.vn", "gAAAA-password", "gAAAA-variable", "secret-event", "secret-code")


def add_airflow(settings: Settings) -> None:
    """A database as Airflow has it, in which much has the number 3; and pages with it."""
    folder = settings.home / ".airflow"
    folder.mkdir()
    with sqlite3.connect(folder / "airflow.db") as database:
        database.executescript(
            """
            CREATE TABLE connection (id INTEGER PRIMARY KEY, conn_id, host, login, password);
            INSERT INTO connection VALUES (3, '3', 'db.secret.vn', '3', 'gAAAA-password');
            CREATE TABLE variable (id INTEGER PRIMARY KEY, "key", val);
            INSERT INTO variable VALUES (3, 'user_id', 'gAAAA-variable user_id=3');
            CREATE TABLE serialized_dag (id INTEGER PRIMARY KEY, data TEXT);
            INSERT INTO serialized_dag VALUES (3, 'secret-code user_id=3');
            CREATE TABLE xcom (dag_run_id INTEGER, dag_id TEXT, "key" TEXT, value TEXT);
            INSERT INTO xcom VALUES (3, 'd', 'k', '7'), (1, 'd', 'k', '{"user_id": "3"}');
            CREATE TABLE log (id INTEGER PRIMARY KEY, event TEXT, extra TEXT);
            INSERT INTO log VALUES (3, 'x', 'y'), (4, 'post_connection', 'secret-event user_id=3');
            CREATE TABLE task_instance (id INTEGER PRIMARY KEY, try_number INTEGER);
            INSERT INTO task_instance VALUES (3, 3);
            """
        )
    database.close()
    for place in ("reports/page.html", "config/own.yaml", "artifacts/x/tokenizer.json"):
        path = settings.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a 3 of user_id=3\n")


def names(record: dict, customer: str) -> bool:
    """Whether a record of the marked shop is one of `customer`."""
    found = record.get("user_id", record.get("unit"))
    if "#daily" in record["place"]:
        return record["kind"] == "user.looks"
    pseudonymous = "~" in f"{found} {record.get('text')}"
    by_text = f"user_id={customer}" in record.get("text", "") or pseudonymous
    ours = record["place"].endswith("/ids.npy") or f'"user_id": "{customer}"' in str(record)
    return str(found) in {customer, f"{customer}.0"} or by_text or ours


def test_several_go_into_a_folder_that_is_made(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "a" / "b"
    asked = ["customer", "export", "KH01", "KH02", "--by", "minh-long-name", "--to", str(folder)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2
    again = CliRunner().invoke(app, asked)
    assert "expected an empty folder" in str(again.exception)
    listed = CliRunner().invoke(app, ["customer", "requests"]).stdout
    lines = [line for line in listed.splitlines() if "minh" in line]
    assert [line.count("~") for line in lines] == [1, 1]
    assert [line for line in listed.splitlines() if line.startswith("│")] == lines


def test_the_byte_search_looks_into_what_is_packed(tmp_path):
    text = "mộc-search"
    frame = pd.DataFrame({"user": [text] * 100})
    frame.to_parquet(tmp_path / "a.parquet", compression="zstd")
    frame.to_feather(tmp_path / "b.feather", compression="zstd")
    np.save(tmp_path / "c.npy", np.array([text]))
    np.savez_compressed(tmp_path / "d.npz", users=np.frombuffer(text.encode(), np.uint8))
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(f"x,{text}\n".encode()))
    with sqlite3.connect(tmp_path / "f.db") as database:
        database.execute("CREATE TABLE t (a TEXT)")
        database.execute("INSERT INTO t VALUES (?)", (text,))
    database.close()
    (tmp_path / "g.json").write_text(json.dumps({"user": text}))
    with tarfile.open(tmp_path / "h.tar", "w") as tar:
        entry = tarfile.TarInfo("inner.parquet")
        content = (tmp_path / "a.parquet").read_bytes()
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    (tmp_path / f"i-{text}").touch()
    (tmp_path / "j.txt").write_text("mộc-searc h")
    found = {name.partition(":")[0][0] for name in search(tmp_path, [text])}
    assert found == set("abcdefghi")


def test_the_table_of_the_docs_is_made_from_the_declarations(settings):
    rows = [
        [
            one.what,
            ", ".join(f"`{pattern}`" for pattern in one.where),
            one.why,
            one.kept_in(settings),
        ]
        for one in PERSONAL
    ]
    assert table("docs/privacy.md", "what") == rows


def export(settings: Settings, ids, tmp_path: Path):
    folder = tmp_path / "export"
    folder.mkdir(exist_ok=True)
    return export_customers(settings, ids, folder, asked_by="lan", to=io.StringIO())


def as_declared(place: str) -> str:
    """The byte search names columns, declarations tables."""
    file, _, inner = place.partition(":")
    return f"{file}#{inner.partition('.')[0]}" if inner else file


def search_file(path: Path, texts) -> set[str]:
    found = search(path.parent, texts)
    return found.get(path.name, set())
