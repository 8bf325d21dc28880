"""What browsers load: the chart library as its makers published it, and nothing that loads more."""

import hashlib
import re
from pathlib import Path

from recsys.orchestration import monitor
from recsys.orchestration.monitor.assets import assets

STATIC = Path(monitor.__file__).parent / "static"
# Of uPlot 1.6.32 from npm: dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE.
PUBLISHED = {
    "uPlot.js": ("19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
    "uPlot.css": ("df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    "uPlot.LICENSE": ("8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}


def test_the_chart_library_is_the_published_one_and_has_its_licence() -> None:
    for name, digest in PUBLISHED.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


def test_no_asset_leads_to_another_host() -> None:
    for name, asset in assets().items():
        said = asset.content.decode()
        found = re.findall(r"url\([^)]*\)|@import|fetch\(|XMLHttpRequest|\bimport\b", said)
        assert found == [], name
        assert set(re.findall(r"https?://[^\s\"'*)]+", said)) <= {
            "https://github.com/leeoniya/uPlot"
        }, name


def test_an_assets_address_changes_with_its_content() -> None:
    versions = {asset.version for asset in assets().values()}
    assert len(versions) == len(assets())
    assert set(assets()) == {path.name for path in STATIC.iterdir()} - {"uPlot.LICENSE"}
