"""Declarations are executed inside the state root only, and what holds something back counts."""

from datetime import timedelta

import pytest

from recsys.errors import InputError
from recsys.retention import BoundaryError, Removal, Retention
from tests.upkeep.ageing import write


def everything(root, **changes):
    return Retention("files", root, lambda: root.glob("*"), **changes)


@pytest.mark.parametrize("path", ["", "..", "../other", "data/../../other", "/etc/passwd"])
def test_paths_that_are_not_below_the_state_root_are_refused(settings, path):
    settings.home.mkdir()
    found = [settings.home / path]
    with pytest.raises(BoundaryError):
        Removal(settings).execute([Retention("area", settings.home, lambda: found)])


def test_what_is_young_or_kept_or_in_use_stays(settings):
    root = settings.work
    for name, days in (("old", 9), ("young", 1), ("kept", 9), ("open", 9)):
        write(root / name, days=days)
    retention = everything(
        root,
        age=timedelta(days=8),
        kept_by=lambda paths: [path for path in paths if path.name == "kept"],
        remove=lambda path: path.name != "open" and path.unlink() is None,
    )
    assert [path.name for path in retention.doomed()] == ["old", "open"]
    assert Removal(settings).execute([retention]) == {
        "files": {"count": 1, "freed_bytes": 1000, "examples": ["old"]}
    }
    assert sorted(path.name for path in root.iterdir()) == ["kept", "open", "young"]


def test_nothing_goes_while_nobody_knows_what_holds_it_back(settings):
    file = write(settings.work / "old", days=9)

    def unknown(paths):
        raise InputError("the note is damaged")

    with pytest.raises(InputError, match="the note is damaged"):
        Removal(settings).execute([everything(settings.work, kept_by=unknown)])
    assert file.exists()


def test_one_area_that_leads_elsewhere_stops_the_step_before_anything_goes(settings, tmp_path):
    file, outside = write(settings.work / "old"), write(tmp_path / "elsewhere" / "file")
    settings.reports.symlink_to(outside.parent)
    with pytest.raises(BoundaryError):
        Removal(settings).execute([everything(settings.work), everything(settings.reports)])
    assert file.exists()
    assert outside.exists()
