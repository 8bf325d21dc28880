"""Bundles are pinned while they are open, verified by their manifest, and found by one loop."""

import json
from pathlib import Path

import pytest

from recsys.comments.linear import ScorerFolder
from recsys.errors import InputError
from recsys.publishing import atomic_folder, point_link, sha256_of
from recsys.settings import Settings
from recsys.storage import DamagedError, open_store
from recsys.storage.bundle import LAYOUT, Bundle, remove_folder, write_manifest
from recsys.storage.store import open_current

POINTER, PREFIX = "data/processed", "data/versions"


def publish(home: Path, name: str, text: str = "rows") -> Path:
    folder = home / PREFIX / name
    with atomic_folder(folder) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "rows.bin").write_text(text)
        write_manifest(temporary, {"made_by": "test"})
    point_link(home / POINTER, folder)
    return folder


def test_a_bundle_is_not_removed_while_it_is_open(settings: Settings) -> None:
    folder = publish(settings.home, "v1")
    with Bundle(folder) as bundle:
        assert not remove_folder(folder)
        bundle.verify()
    assert remove_folder(folder)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_what_the_manifest_does_not_describe_is_named(settings: Settings, damage: str) -> None:
    file = publish(settings.home, "v1") / "deep" / "rows.bin"
    file.unlink() if damage == "missing" else file.write_text("rowz")
    with Bundle(file.parents[1]) as bundle, pytest.raises(DamagedError, match=r"deep/rows\.bin"):
        bundle.verify()


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{", '{"layout": 2}', '{"layout": "x", "files": {}}', '{"files": {"a": 1}}'],
)
def test_a_damaged_manifest_is_named(settings: Settings, manifest: str) -> None:
    folder = publish(settings.home, "v1")
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(DamagedError, match=r"manifest\.json: cannot be read"):
        Bundle(folder)
    assert remove_folder(folder)


def test_a_newer_layout_is_refused(settings: Settings) -> None:
    folder = publish(settings.home, "v1")
    write_manifest(folder, {}, {}, layout=LAYOUT + 1)
    with pytest.raises(DamagedError, match=f"written in layout {LAYOUT + 1}"):
        Bundle(folder)


def test_the_pointer_is_read_again_when_its_folder_was_pruned(settings: Settings) -> None:
    old, new = publish(settings.home, "v1"), publish(settings.home, "v2")
    point_link(settings.home / POINTER, old)

    def open_late(folder: Path) -> Bundle:
        if folder == old:  # pruned between reading the pointer and pinning the folder
            assert remove_folder(old)
            point_link(settings.home / POINTER, new)
        return Bundle(folder)

    found = open_current(open_store(settings), POINTER, PREFIX, open_late)
    assert found is not None
    assert found.path == new
    assert remove_folder(old)


def test_a_pointer_to_nothing_is_named(settings: Settings) -> None:
    assert open_current(open_store(settings), POINTER, PREFIX, Bundle) is None
    remove_folder(publish(settings.home, "v1"))
    with pytest.raises(DamagedError, match=r"data/processed: leads to data/versions/v1"):
        open_current(open_store(settings), POINTER, PREFIX, Bundle)


def test_the_manifests_of_the_first_layout_are_read(settings: Settings) -> None:
    """A data version, an embedding set, a model and a scorer had a manifest of its own each."""
    folder = publish(settings.home, "v1")
    digest = sha256_of(folder / "deep" / "rows.bin")
    files = {"deep/rows.bin": digest}
    for name, manifest in {
        "manifest.json": {"schema_version": 1, "files": {"deep/rows.bin": {"sha256": digest}}},
        "metadata.json": {"layout": 1, "files": files},
        "manifest.json ": {"format": 1, "sha256": files},
    }.items():
        for path in folder.glob("m*.json"):
            path.unlink()
        (folder / name.strip()).write_text(json.dumps(manifest))
        with Bundle(folder) as bundle:
            bundle.verify()
            assert bundle.manifest == {"layout": 1, "files": {"deep/rows.bin": {"sha256": digest}}}
            assert not remove_folder(folder)


def test_the_scorers_of_the_first_layout_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(b"arrays")
    manifest = {"as_of": "2025-01-01T00:00:00+00:00", "sha256": sha256_of(tmp_path / "model.npz")}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with ScorerFolder(tmp_path) as folder:
        folder.verify()
        assert folder.as_of.year == 2025
    (tmp_path / "model.npz").write_bytes(b"other")
    with ScorerFolder(tmp_path) as folder, pytest.raises(InputError, match=r"model\.npz"):
        folder.load()
