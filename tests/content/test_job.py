import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.config import ConfigError
from recsys.content import ContentConfig, ModelConfig
from recsys.content.embeddings import EmbeddingError, current_embeddings
from recsys.content.job import (
    alert_on_fallback,
    build_embeddings,
    count_new_texts,
    embed_products,
)
from recsys.data.sample import write_sample_shop
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings


def run(settings: Settings, config: ContentConfig, shop: pd.DataFrame, **options: bool) -> dict:
    return embed_products(settings, config, shop, "v1", **options)


def wanting(config: ContentConfig, **model: object) -> ContentConfig:
    return config.model_copy(update={"model": ModelConfig(**model)})


def test_the_first_run_embeds_every_product(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    assert current_embeddings(settings) is None
    summary = run(settings, config, shop)
    found = current_embeddings(settings)
    assert found is not None
    assert found.set_id == summary["set_id"]
    assert found.product_ids == shop["product_id"].tolist()
    assert found.vectors.shape == (112, 384)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert summary["reason"] == "no previous set"
    assert summary["encoded"] == summary["products"] == 112
    assert summary["boilerplate_sentences"] == 1
    assert found.manifest["text_fields"] == ["product_name", "brand", "category", "description"]
    assert json.loads(json.dumps(summary)) == summary


def test_an_unchanged_catalogue_makes_no_new_set(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    first = run(settings, config, shop)
    second = run(settings, config, shop)
    assert second["set_id"] == first["set_id"]
    assert second["encoded"] == 0


def test_only_new_and_changed_products_are_encoded(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    before = current_embeddings(settings)
    changed = shop.copy()
    changed.loc[7, "product_name"] = "Son Dưỡng Môi Vaseline Hồng 7g"
    new = changed.iloc[[0]].assign(product_id="new", product_name="Toner Klairs Không Mùi 180ml")
    twin = new.assign(product_id="twin")
    silent = new.assign(product_id="silent", product_name="", brand="", description=None)
    changed = pd.concat([new, twin, silent, changed.drop(index=3)], ignore_index=True)

    summary = run(settings, config, changed)
    after = current_embeddings(settings)
    assert before is not None
    assert after is not None
    assert summary["reason"] is None
    assert summary["encoded"] == 2  # the changed one, and the twins' common text
    assert summary["without_text"] == 1
    assert after.product_ids == changed["product_id"].tolist()
    kept = [i for i in before.product_ids if i in after.product_ids and i != "1007"]
    for product in kept:
        old, now = before.product_ids.index(product), after.product_ids.index(product)
        assert (before.vectors[old] == after.vectors[now]).all()
    assert (after.vectors[0] == after.vectors[1]).all()
    assert not after.vectors[2].any()
    renamed = after.product_ids.index("1007")
    assert not np.allclose(after.vectors[renamed], before.vectors[7])
    # the old set is still whole for whoever reads it
    assert before.search("kem chống nắng", 1)


def test_a_carried_on_set_equals_what_encoding_everything_gives(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop.iloc[:100])
    run(settings, config, shop)
    found = current_embeddings(settings)
    assert found is not None
    assert found.manifest["encoded"] == 12
    texts = shop["product_name"] + "\n" + shop["product_name"] + "\n" + shop["brand"] + "\n"
    texts += shop["description"].str.split(". ", regex=False).str[0]
    again = found._static_encoder.encode(texts.tolist())
    np.testing.assert_allclose(found.vectors, again, atol=1e-6)


def test_force_makes_everything_anew_and_the_same(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    before = current_embeddings(settings)
    summary = run(settings, config, shop, force=True)
    after = current_embeddings(settings)
    assert before is not None
    assert after is not None
    assert summary["reason"] == "forced"
    assert summary["encoded"] == 112
    assert after.set_id != before.set_id
    assert after.vectors.tobytes() == before.vectors.tobytes()


def test_a_catalogue_that_outgrew_the_fit_is_fitted_again(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop.iloc[:90])
    assert run(settings, config, shop.iloc[:105])["reason"] is None
    summary = run(settings, config, shop)  # 22 of 112 by now
    assert summary["reason"] is None
    more = shop.assign(product_name=shop["product_name"].where(shop.index > 4, "Tên mới"))
    assert run(settings, config, more)["reason"] == (
        "27 of 112 products are new since the last fit"
    )


def test_other_settings_make_everything_anew(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    other = config.model_copy(update={"text_fields": ("product_name",)})
    summary = run(settings, other, shop)
    assert summary["reason"] == "the model or the texts' settings changed"


@pytest.mark.parametrize("file", ["vectors.npy", "model/tokenizer.json", "product_ids.json"])
def test_a_damaged_set_is_noticed_and_made_anew(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, file: str
) -> None:
    run(settings, config, shop)
    damaged = settings.embeddings / "current" / file
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    with pytest.raises(EmbeddingError, match=Path(file).name):
        current_embeddings(settings)
    assert run(settings, config, shop)["reason"] == "no previous set"
    assert current_embeddings(settings) is not None


def test_a_missing_file_is_named(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    (settings.embeddings / "current" / "vectors.npy").unlink()
    with pytest.raises(EmbeddingError, match=r"vectors\.npy: .* does not exist"):
        current_embeddings(settings)
    (settings.embeddings / "current" / "manifest.json").write_text("{")
    with pytest.raises(EmbeddingError, match=r"manifest\.json: cannot be read"):
        current_embeddings(settings)


def test_old_sets_are_removed_and_what_is_just_being_fetched_is_not(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    fetched = settings.embeddings / ".emb_20200101.tmp"  # by the service, from a bucket
    fetched.mkdir()
    names = [run(settings, config, shop, force=True)["set_id"] for _ in range(4)]
    kept = sorted(entry.name for entry in settings.embeddings.iterdir())
    assert kept == [fetched.name, "current", *names[1:]]


def test_runs_at_the_same_time_wait_for_each_other(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(run, settings, config, shop) for _ in range(3)]
        summaries = [future.result() for future in futures]
    assert len({summary["set_id"] for summary in summaries}) == 1
    assert sorted(summary["encoded"] for summary in summaries) == [0, 0, 112]


def test_a_killed_run_leaves_the_current_set_as_it_was(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    program = f"""
from pathlib import Path
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import make_shop
from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import Settings
config = ContentConfig.model_validate_json({config.model_dump_json()!r})
print("ready", flush=True)
while True:
    embed_products(Settings(Path({str(settings.home)!r})), config, make_shop(), "v2", force=True)
"""
    for delay in (0.05, 0.4, 1.0):
        worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(delay)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        found = current_embeddings(settings)
        assert found is not None
        assert found.search("kem chống nắng", 3)
    assert run(settings, config, shop)["encoded"] == 0


@pytest.mark.parametrize("name", ["intfloat/not-in-the-cache", "/no/such/folder", "./gone"])
def test_a_model_that_cannot_be_had_falls_back_at_once_and_says_so(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, name: str
) -> None:
    import sentence_transformers  # noqa: F401  # its import is not what is timed

    started = time.monotonic()
    summary = run(settings, wanting(config, name=name), shop)
    assert time.monotonic() - started < 20
    assert summary["model"] == "catalog-static"
    assert summary["requested_model"] == name
    assert name in summary["fallback_reason"]
    found = current_embeddings(settings)
    assert found is not None
    assert found.manifest["fallback_reason"] == summary["fallback_reason"]
    again = run(settings, wanting(config, name=name), shop)
    assert (again["encoded"], again["fallback_reason"]) == (0, summary["fallback_reason"])


def test_a_fallback_is_alerted_and_cleared(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    summary = run(settings, wanting(config, name="no/such-model"), shop)
    assert alert_on_fallback(settings, summary)["log"] == "sent"
    line = (settings.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert "| WARNING |" in line
    assert "embedding_fallback" in line
    assert "| model=catalog-static, requested_model=no/such-model" in line
    back = run(settings, config, shop)
    alert_on_fallback(settings, back)
    assert alert_on_fallback(settings, back) == {}


def test_strict_fails_and_leaves_the_current_set(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    before = (settings.embeddings / "current").readlink()
    with pytest.raises(InputError, match="no/such-model"):
        run(settings, wanting(config, name="no/such-model", fallback="strict"), shop)
    assert (settings.embeddings / "current").readlink() == before


def test_no_products_and_no_version_are_refused(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    with pytest.raises(InputError, match="no products"):
        run(settings, config, shop.iloc[:0])
    with pytest.raises(InputError, match="run data_refresh first"):
        build_embeddings(settings)


def test_the_published_version_is_embedded_and_shows_the_set(settings: Settings) -> None:
    end = datetime(2025, 3, 1, tzinfo=UTC)
    write_sample_shop(settings, reviews=400, products=60, until=end.date())
    run_refresh(settings, DataInterval(end - timedelta(days=1), end))
    summary = build_embeddings(settings)
    found = current_embeddings(settings)
    assert found is not None
    assert found.product_ids == current_version(settings).mappings()[1]
    assert found.vectors.shape == (60, 384)
    shown = settings.processed / "content_based_embeddings"
    assert shown.resolve() == found.path
    assert summary["data_version"] == current_version(settings).version_id
    assert build_embeddings(settings)["set_id"] == summary["set_id"]
    assert build_embeddings(settings, force=True)["set_id"] != summary["set_id"]


def test_only_what_changes_a_text_is_counted_as_new(settings: Settings) -> None:
    shop = write_sample_shop(settings.raw / "viecomrec", reviews=300)
    table = pd.read_csv(shop.products_path, dtype=str)

    def counted(**changes: str) -> int:
        fresh = table.copy()
        for column, text in changes.items():
            fresh.loc[3, column] = text
        fresh.to_csv(shop.products_path, index=False)
        end = datetime.now(UTC)
        run_refresh(settings, DataInterval(end - timedelta(days=1), end))
        return count_new_texts(settings)

    assert counted() == 0, "there is no set yet"
    build_embeddings(settings)
    assert counted() == 0
    assert counted(price="1") == 0
    assert counted(product_name="Son dưỡng hoàn toàn mới") == 1
    build_embeddings(settings)
    assert counted(product_name="Son dưỡng hoàn toàn mới") == 0
    launched = table.iloc[[3]].assign(product_id="launched", product_name="Nước hoa mới")
    table = pd.concat([table, launched], ignore_index=True)
    assert counted() == 2, "the name of before, and the launched one"
    build_embeddings(settings)
    table = table.iloc[:-1]
    assert counted() == 0, "what is gone is no work"
    (settings.home / "config").mkdir(exist_ok=True)
    (settings.home / "config" / "content.yaml").write_text("text_fields: [product_name]\n")
    assert counted() == len(table)


def test_a_bad_setting_is_named(settings: Settings) -> None:
    file = settings.home / "config" / "content.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("text_fields: [product_name]\nmodel: {fallback: maybe}\n")
    with pytest.raises(ConfigError, match=r"content.yaml: model.fallback"):
        build_embeddings(settings)


def test_search_finds_products_with_and_without_accents(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    run(settings, config, shop)
    found = current_embeddings(settings)
    assert found is not None
    names = shop.set_index("product_id")["product_name"]
    for query in (
        "kem chống nắng",
        "kem chong nang",
        "KEM CHỐNG NẮNG",
        "kem cho\u0302\u0301ng nắng",
    ):
        hits = found.search(query, 10)
        assert len(hits) == 10
        assert all(names[product].startswith("Kem Chống Nắng") for product, _ in hits)
        assert [score for _, score in hits] == sorted((s for _, s in hits), reverse=True)


@pytest.mark.parametrize("query", ["", "日本", "\ud83d", "?!", "\x00"])
def test_queries_without_known_words_find_nothing(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, query: str
) -> None:
    run(settings, config, shop)
    found = current_embeddings(settings)
    assert found is not None
    assert found.search(query, 5) == []
    assert found.search("kem", 0) == []
    assert len(found.search("kem", 10_000)) == 112


def test_a_product_without_a_text_is_never_found(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame
) -> None:
    shop.loc[5, ["product_name", "brand", "description"]] = ""
    run(settings, config, shop)
    found = current_embeddings(settings)
    assert found is not None
    everything = [product for product, _ in found.search("sữa rửa mặt", 10_000)]
    assert len(everything) == len(set(everything)) == 111
    assert "1005" not in everything
