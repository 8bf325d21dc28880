from zoneinfo import ZoneInfo

import pytest

from recsys.logs import fields, file_logger


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
