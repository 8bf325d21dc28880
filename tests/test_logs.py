import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from recsys.alerting import AlertManager
from recsys.config import ConfigError
from recsys.logs import fields, file_logger
from recsys.request_log import LOGGER_NAME, Answered, RequestLog
from recsys.settings import REPOSITORY, Settings


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("red \x1b[31malarm\x1b[0m", r"red \x1b[31malarm\x1b[0m"),
        ("one\r\n2025 | INFO | Starting job: x", r"one\r\n2025 | INFO | Starting job: x"),
        ("one\u2028two\x85three", r"one\u2028two\x85three"),
        ("bell\x07, nothing\x00, back\x08", r"bell\x07, nothing\x00, back\x08"),
        ("abc\u202efdp.exe", r"abc\u202efdp.exe"),
        ("half \ud83d of a pair", r"half \ud83d of a pair"),
        ("Bước publish thất bại 🙂", "Bước publish thất bại 🙂"),
    ],
)  # fmt: skip
def test_nothing_from_outside_makes_a_line_or_a_colour_of_its_own(tmp_path, said, written):
    path = tmp_path / "scheduler.log"
    logger = file_logger("scheduler", path, ZoneInfo("Asia/Ho_Chi_Minh"), named_lines=False)
    logger.error("Job completed: data_refresh%s", fields(error=said))
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert f"| error={written}" in line


def test_a_folder_that_cannot_be_set_aside_stops_nobody_who_logs(tmp_path, monkeypatch, capsys):
    path = tmp_path / "scheduler.log"
    logger = file_logger("scheduler", path, ZoneInfo("Asia/Ho_Chi_Minh"), named_lines=False)
    path.unlink(missing_ok=True)
    path.mkdir()

    def taken(_: object) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("recsys.logs.set_aside", taken)  # another process was first
    logger.error("Job failed")
    assert "Job failed" in capsys.readouterr().err


ZONE = ZoneInfo("Asia/Ho_Chi_Minh")


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_record_is_one_json_object(tmp_path: Path):
    path = tmp_path / "scheduler.log"
    logger = file_logger("scheduler", path, ZONE, named_lines=False, log_format="json")
    logger.info("Starting job: %s", "data_refresh")
    logger.error("Job completed: x%s", fields(duration="9s", error="no file, or\nnone, a=b | c"))
    first, second = json_lines(path)
    moment = datetime.fromisoformat(first.pop("time"))
    assert abs(datetime.now(ZONE) - moment) < timedelta(minutes=5)
    assert moment.utcoffset() == timedelta(hours=7)
    about = {"level": "INFO", "logger": "scheduler"}
    assert first == {**about, "message": "Starting job: data_refresh"}
    assert second["message"] == "Job completed: x"
    assert second["fields"] == {"duration": "9s", "error": "no file, or\nnone", "a": "b | c"}


@pytest.mark.parametrize(
    "said",
    ["red \x1b[31m", "one\r\ntwo", "one\u2028two\x85three", "abc\u202efdp", 'a "b" \\', "Bước 🙂"],
)
def test_whatever_is_said_stays_one_object_and_comes_back_as_it_was(tmp_path: Path, said: str):
    path = tmp_path / "alerts.log"
    file_logger("alerting", path, ZONE, log_format="json").warning(said)
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    assert json.loads(text)["message"] == said


def test_half_of_a_pair_is_written_all_the_same(tmp_path: Path):
    path = tmp_path / "alerts.log"
    file_logger("alerting", path, ZONE, log_format="json").warning("half \ud83d of a pair")
    [line] = json_lines(path)
    assert line["message"] == "half \ud83d of a pair"


def test_a_traceback_is_part_of_the_object(tmp_path: Path):
    path = tmp_path / "als.log"
    logger = file_logger("als", path, ZONE, log_format="json")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("The training failed")
    [line] = json_lines(path)
    assert line["error"].endswith("ValueError: broken")


def test_requests_are_objects_with_their_fields(settings: Settings):
    path = settings.logs / "recommender.log"
    log = RequestLog(settings.service_db, path, ZONE, log_format="json")
    for user in ("18283", 'o"clock'):
        log.add(Answered(time.time(), "recommend", user, 5, 1.0, False, None, None, "m", 200))
    log.close()
    lines = json_lines(path)
    assert [line["fields"]["user_id"] for line in lines] == ["18283", 'o"clock']
    assert {(line["logger"], line["message"], line["level"]) for line in lines} == {
        (LOGGER_NAME, "recommend", "INFO")
    }


def test_the_configuration_chooses_and_secrets_stay_masked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHOP_TOKEN", "correct-horse-battery")
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "scheduler_config.json").write_text('{"log_format": "json"}', encoding="utf-8")
    said = "refused: correct-horse-battery"
    AlertManager(settings).send_alert("stock_low", said, channels=["log"], context={"left": 3})
    [line] = json_lines(settings.logs / "service" / "alerts.log")
    assert line["message"] == "stock_low triggered: refused: ***"
    assert line["fields"] == {"left": "3"}
    (folder / "scheduler_config.json").write_text('{"log_format": "xml"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"log_format: expected .*'text', 'json'"):
        AlertManager(settings)


def test_a_process_says_objects_to_its_output(settings: Settings):
    settings.home.mkdir()
    program = (
        "import logging, zoneinfo; from recsys.logs import log_to_output;"
        "log_to_output('json', zoneinfo.ZoneInfo('Asia/Ho_Chi_Minh'));"
        "logging.getLogger('serving.parent').info('worker 0 joined | model_id=als_1')"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "include")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = json.loads(done.stderr)
    assert (said["logger"], said["fields"]) == ("serving.parent", {"model_id": "als_1"})
