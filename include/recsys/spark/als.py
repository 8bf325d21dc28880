"""Item factors of ALS from `pyspark.ml`, for the same model that `implicit` trains otherwise."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from recsys.arrays import Float32Array
from recsys.config import load_config
from recsys.data.config import Engine
from recsys.models.als import AlsParameters, Trainer
from recsys.settings import Settings
from recsys.spark.session import SparkConfig, as_literal, spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ROWS_AT_ONCE = 1 << 20
_SMALLEST = np.float32(1e-6)
_BLOCKS_PER_CORE = 4


@contextlib.contextmanager
def als_trainer(engine: Engine, settings: Settings) -> Iterator[Trainer | None]:
    """What trains ALS in the block: None is `implicit`, in this process.

    With `Engine.SPARK`, the session begins with the first training and ends with the block.
    """
    if engine is Engine.PANDAS:
        yield None
        return
    spark = load_config(settings, SparkConfig)
    folder = settings.work / f"als-{uuid4().hex}"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def train(matrix: sparse.csr_matrix, parameters: AlsParameters, seed: int) -> Float32Array:
            session = stack.enter_context(spark_session(spark, folder / "spark"))
            entries = folder / "entries"
            shutil.rmtree(entries, ignore_errors=True)
            _write_entries(matrix, entries)
            return _item_factors(session, entries, matrix, parameters, seed, spark)

        yield train


def _write_entries(matrix: sparse.csr_matrix, folder: Path) -> None:
    """``(user, item, rating)`` of the stored entries, in files of a million.

    Spark's confidence is ``1 + alpha * rating`` where `implicit`'s is the value itself.
    """
    folder.mkdir(parents=True)
    user = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    for first in range(0, matrix.nnz, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        rating = np.maximum(matrix.data[part] - 1, _SMALLEST).astype(np.float32)
        columns = {"user": user[part], "item": matrix.indices[part], "rating": rating}
        pq.write_table(pa.table(columns), folder / f"{first:012}.parquet")


def _item_factors(
    session: "SparkSession",
    entries: Path,
    matrix: sparse.csr_matrix,
    parameters: AlsParameters,
    seed: int,
    spark: SparkConfig,
) -> Float32Array:
    """``(items, factors)``; zeros for an item without entries."""
    from pyspark.ml.recommendation import ALS

    items = len(np.unique(matrix.indices))
    blocks = _BLOCKS_PER_CORE * spark.executors * spark.cores
    als = ALS(
        rank=parameters.factors,
        maxIter=parameters.iterations,
        # Spark multiplies it by the number of entries of each user and item, `implicit` does not:
        # over the mean number of entries of an item, it holds back all items together as much.
        regParam=parameters.regularization * max(items, 1) / max(matrix.nnz, 1),
        alpha=1.0,
        implicitPrefs=True,
        userCol="user",
        itemCol="item",
        ratingCol="rating",
        seed=seed,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        finalStorageLevel="MEMORY_AND_DISK",
    )
    found = als.fit(session.read.parquet(as_literal(entries))).itemFactors.toArrow()
    factors = np.zeros((matrix.shape[1], parameters.factors), dtype=np.float32)
    vectors = found["features"].combine_chunks().flatten().to_numpy()
    factors[found["id"].to_numpy()] = vectors.reshape(len(found), parameters.factors)
    return factors
