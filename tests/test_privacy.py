"""Pseudonyms, their keys, and the register of requests."""

import hashlib
import json
import shutil
import stat

import pyarrow as pa
import pytest

from recsys.config import parse_json
from recsys.errors import InputError
from recsys.ids import IdRules
from recsys.personal import PSEUDONYM
from recsys.privacy import (
    FORGETTING_KEY,
    Kind,
    Register,
    adopt_privacy,
    ask_to_forget,
    ids_to_forget,
    load_forgotten,
    read_requests,
    readmit,
    told,
)
from recsys.pseudonyms import (
    KEY_VARIABLE,
    KEYS_KEY,
    REQUESTS_KEY,
    Pseudonyms,
    add_key,
    load_pseudonyms,
    names_in_logs,
)
from recsys.settings import Settings
from recsys.upkeep.backup import write_backup
from recsys.upkeep.restore import restore_backup

KEYS = (b"a" * 32, b"b" * 32)


def test_a_pseudonym_is_the_same_for_every_spelling_and_another_with_another_key():
    names = Pseudonyms(KEYS[:1])
    assert names.of("443") == names.of("443.0") == names.of(" 443 ")
    assert PSEUDONYM.fullmatch(names.of("443"))
    assert names.of("443") != names.of("444")
    assert names.of("443") != Pseudonyms(KEYS[1:]).of("443")
    assert hashlib.sha256(b"443").hexdigest()[:32] not in names.of("443")


def test_the_first_use_makes_a_key_that_stays(settings):
    first = load_pseudonyms(settings).of("7")
    assert load_pseudonyms(settings).of("7") == first
    folder = (settings.home / KEYS_KEY).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_new_key_names_and_the_old_ones_find(settings):
    before = load_pseudonyms(settings).of("7")
    assert add_key(settings) == 2
    names = load_pseudonyms(settings)
    assert names.of("7") != before
    assert names.all_of("7") == (names.of("7"), before)


def test_keys_of_the_environment_come_first(settings, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, ", ".join(key.hex() for key in KEYS))
    assert load_pseudonyms(settings).all_of("7") == Pseudonyms(KEYS).all_of("7")
    assert not (settings.home / KEYS_KEY).exists()
    with pytest.raises(InputError, match="those of the environment"):
        add_key(settings)
    monkeypatch.setenv(KEY_VARIABLE, "hunter2")
    with pytest.raises(InputError, match="64 hexadecimal digits") as told:
        load_pseudonyms(settings)
    assert "hunter2" not in str(told.value)


def test_a_damaged_key_is_never_replaced_in_silence(settings):
    load_pseudonyms(settings)
    (settings.home / KEYS_KEY).write_text('{"keys": []}')
    for use in (load_pseudonyms, add_key):
        with pytest.raises(InputError, match="from a backup"):
            use(settings)
    assert names_in_logs(settings, "7") == ("7",)


def test_no_new_key_takes_the_place_of_one_that_is_gone(settings):
    forget(settings, "7")
    register = settings.home / REQUESTS_KEY
    (settings.home / KEYS_KEY).unlink()
    for _ in range(2):
        for use in (load_pseudonyms, add_key, lambda _: forget(settings, "8")):
            with pytest.raises(InputError, match=r"keys\.json: is gone"):
                use(settings)
        assert not (settings.home / KEYS_KEY).exists()
        register.unlink(missing_ok=True)  # its last good copy names them still


def test_a_register_that_other_keys_name_is_refused(settings, monkeypatch):
    """By keys that are not its own nobody would be forgotten any more."""
    forget(settings, "7")
    own = parse_json((settings.home / KEYS_KEY).read_bytes())["keys"]
    before = (settings.home / REQUESTS_KEY).read_bytes()
    other = KEYS[0].hex()
    monkeypatch.setenv(KEY_VARIABLE, other)
    for use in (load_forgotten, Register, lambda _: forget(settings, "8")):
        with pytest.raises(InputError, match=f"{KEY_VARIABLE}: 1 requests of the register"):
            use(settings)
    assert (settings.home / REQUESTS_KEY).read_bytes() == before
    monkeypatch.setenv(KEY_VARIABLE, ",".join([other, *own]))
    [again] = forget(settings, "7.0")
    assert again.number == 1
    forget(settings, "8")
    assert all(one in load_forgotten(settings) for one in ("7", "8"))
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InputError, match=r"keys\.json: 1 requests of the register"):
        load_forgotten(settings)


def test_a_register_of_before_has_no_fingerprints_and_is_read(settings):
    forget(settings, "7")
    register = settings.home / REQUESTS_KEY
    content = parse_json(register.read_bytes())
    assert content["requests"][0].pop("key")
    register.write_text(json.dumps(content))
    assert "7" in load_forgotten(settings)
    assert "key" not in told(forget(settings, "8")[0])


def test_logs_may_name_somebody_by_id_or_pseudonym(settings):
    assert names_in_logs(settings, "7") == ("7",)
    assert not (settings.home / KEYS_KEY).exists()
    name = load_pseudonyms(settings).of("7")
    assert names_in_logs(settings, "7") == ("7", name)


def test_a_request_is_on_the_register_until_long_after_it_is_done(settings):
    register = Register(settings)
    [first, second] = register.open(Kind.EXPORT, ["7", "8"], "lan")
    assert (first.number, second.number) == (1, 2)
    assert (first.due_at - first.asked_at).days == 3
    register.finish([2], {"records": 4})
    [eighth] = Register(settings).requests("8.0")
    assert (eighth.proof, eighth.asked_by) == ({"records": 4}, "lan")
    assert eighth.done_at > eighth.asked_at
    assert [one.done_at is None for one in register.requests()] == [True, False]
    assert register.open(Kind.EXPORT, ["7"], "lan")[0].number == 3


def test_a_damaged_register_has_its_last_good_copy(settings):
    register = Register(settings)
    register.open(Kind.EXPORT, ["7"], "lan")
    (settings.home / REQUESTS_KEY).write_text("junk")
    assert [one.number for one in Register(settings).requests("7")] == [1]
    register.open(Kind.EXPORT, ["7"], "lan")
    assert [one.number for one in Register(settings).requests("7")] == [1, 2]


def test_a_restored_state_knows_its_pseudonyms_and_keeps_them_private(settings, tmp_path):
    Register(settings).open(Kind.EXPORT, ["7"], "lan")
    write_backup(settings, tmp_path / "backup.tar")
    there = Settings(tmp_path / "there")
    restore_backup(there, tmp_path / "backup.tar")
    assert load_pseudonyms(there).of("7") == load_pseudonyms(settings).of("7")
    assert len(Register(there).requests("7")) == 1
    assert stat.S_IMODE((there.home / KEYS_KEY).parent.stat().st_mode) == 0o700


def test_who_asks_to_be_forgotten_is_so_at_once_in_every_spelling(settings):
    assert not load_forgotten(settings)
    assert not (settings.home / KEYS_KEY).exists()
    [request] = forget(settings, "443.0")
    forgotten = load_forgotten(settings)
    assert len(forgotten) == 1
    assert all(way in forgotten for way in ("443", 443, " 443 ", "4.43E+02"))
    assert "444" not in forgotten
    assert forgotten.request("443") == request
    ids = pa.chunked_array([["443.0", "444", None], ["443"], []], pa.large_string())
    assert forgotten.mask(ids).to_pylist() == [True, False, False, True]


def test_a_whole_column_is_answered_like_each_of_its_ids(settings):
    forget(settings, "7", "mộc an", "KH01")
    forgotten = load_forgotten(settings)
    ids = ["7", "07", "mo\u0323\u0302c an", "KH01 ", "kh01", "", "\\N", "7.50"]
    mask = forgotten.mask(pa.chunked_array([ids], pa.large_string())).to_pylist()
    assert mask == [one in forgotten for one in ids]
    assert sum(mask) == 3


def test_asked_again_while_it_waits_it_is_one_request(settings):
    [first] = forget(settings, "7")
    assert forget(settings, "7", "8")[0] == first
    add_key(settings)
    assert forget(settings, "7.0") == [first]
    assert [one.number for one in Register(settings).requests()] == [1, 2]
    Register(settings).finish([1], {"erased": {}})
    assert "7" in load_forgotten(settings)
    [again] = forget(settings, "7")
    assert again.number == 3


def test_the_register_knows_no_ids_and_the_job_does(settings):
    forget(settings, "mộc-an-7")
    assert list(ids_to_forget(settings).read()) == ["mộc-an-7"]
    for path in (settings.home / REQUESTS_KEY, settings.logs / "customer_audit.log"):
        assert load_pseudonyms(settings).of("mộc-an-7") in path.read_text()
        assert "an-7" not in path.read_text()
    assert stat.S_IMODE((settings.home / FORGETTING_KEY).parent.stat().st_mode) == 0o700


def test_who_is_readmitted_is_left_out_no_longer(settings):
    forget(settings, "7", "8")
    add_key(settings)
    [request] = readmit(settings, ["7.0"], "minh", IdRules())
    assert (request.kind, request.asked_by) == (Kind.READMIT, "minh")
    forgotten = load_forgotten(settings)
    assert ("7" in forgotten, "8" in forgotten) == (False, True)
    assert list(ids_to_forget(settings).read()) == ["8"]
    first = Register(settings).requests("7")[0]
    assert (first.done_at, first.proof) == (request.asked_at, {"readmitted_by": 3})
    assert forget(settings, "7")[0].number == 4
    assert "7" in load_forgotten(settings)


def test_only_who_is_forgotten_can_be_readmitted(settings):
    forget(settings, "7")
    with pytest.raises(InputError, match="'9': is not forgotten"):
        readmit(settings, ["7", "9"], "lan", IdRules())
    assert "7" in load_forgotten(settings)


@pytest.mark.parametrize("given", ["", "guest", "0", "n*****a", "a\nb", f"~{'0a' * 16}"])
def test_nobody_can_be_forgotten_who_is_no_single_customer(settings, given):
    with pytest.raises(InputError, match=r"no user|not an id|many people|is a pseudonym"):
        forget(settings, "7", given)
    assert not load_forgotten(settings)
    assert not (settings.home / FORGETTING_KEY).exists()


@pytest.mark.parametrize("by", ["", "x" * 65, "lan | customer=~1", "lan\n", "lan\u2028"])
def test_who_asks_fits_into_a_line_of_the_log(settings, by):
    forget(settings, "7")
    for ask in (ask_to_forget, readmit):
        with pytest.raises(InputError, match=r"--by .* expected 1 to 64 characters"):
            ask(settings, ["7"], by, IdRules())
    assert len(Register(settings).requests()) == 1


def test_who_is_forgotten_stays_so_while_the_register_is_damaged(settings):
    forget(settings, "7")
    (settings.home / REQUESTS_KEY).write_text("junk")
    assert "7" in load_forgotten(settings)


@pytest.mark.parametrize("left", [0, 1])
def test_a_register_never_shrinks(settings, left):
    forget(settings, "7")
    forget(settings, "8")
    register = settings.home / REQUESTS_KEY
    content = parse_json(register.read_bytes())
    register.write_text(json.dumps({"requests": content["requests"][:left]}))
    assert all(one in load_forgotten(settings) for one in ("7", "8"))
    assert f"lacks {2 - left} requests" in str(read_requests(settings)[1])
    assert forget(settings, "9")[0].number == 3
    assert read_requests(settings)[1] is None
    assert all(one in load_forgotten(settings) for one in ("7", "8", "9"))


def test_the_files_of_the_register_are_their_owners_alone(settings, tmp_path):
    forget(settings, "7")
    write_backup(settings, tmp_path / "backup.tar")
    there = Settings(tmp_path / "there")
    restore_backup(there, tmp_path / "backup.tar")
    for home in (settings.home, there.home):
        files = list((home / KEYS_KEY).parent.glob("*.json"))
        assert len(files) == 4
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def forget(settings, *ids):
    return ask_to_forget(settings, ids, "lan", IdRules())


def test_registers_that_went_apart_become_one(settings, tmp_path):
    """As after a restore: each has requests that the other lacks, under the same numbers."""
    forget(settings, "7")
    copy = Settings(tmp_path / "copy")
    shutil.copytree(settings.home, copy.home)
    Register(settings).finish([1], {"erased": {}})
    readmit(settings, ["7"], "lan", IdRules())
    forget(copy, "8")
    add_key(copy)
    forget(copy, "9")
    for _ in range(2):
        adopt_privacy(copy, settings)
        merged = Register(copy).requests()
        assert [one.number for one in merged] == [1, 2, 3, 4]
        assert [one.kind for one in merged] == [Kind.FORGET, Kind.READMIT, Kind.FORGET, Kind.FORGET]
        assert merged[0].done_at is not None
        assert merged == sorted(merged, key=lambda one: one.asked_at)
        forgotten = load_forgotten(copy)
        assert [one in forgotten for one in ("7", "8", "9")] == [False, True, True]
        assert set(load_pseudonyms(copy).all_of("8")) >= set(load_pseudonyms(settings).all_of("8"))
        assert set(ids_to_forget(copy).read()) >= {"8", "9"}
    adopt_privacy(settings, copy)
    assert Register(settings).requests() == merged
    assert load_pseudonyms(settings).of("9") in load_pseudonyms(copy).all_of("9")
