"""Item factors of ALS from `pyspark.ml`, for the same model that `implicit` trains otherwise."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pyarrow as pa
from pyarrow import feather
from scipy import sparse

from recsys.arrays import Float32Array
from recsys.config import load_config
from recsys.data.config import Engine
from recsys.models.als import AlsParameters, Trainer
from recsys.settings import Settings
from recsys.spark.session import SparkConfig, session_folder, spark_session
from recsys.spark.shelf import Shelf, open_shelf

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
    work = settings.work / f"als-{uuid4().hex}"
    with contextlib.ExitStack() as stack:

        def train(matrix: sparse.csr_matrix, parameters: AlsParameters, seed: int) -> Float32Array:
            session = stack.enter_context(spark_session(spark, session_folder(work)))
            with contextlib.closing(open_shelf(settings, spark, work)) as shelf:
                return _item_factors(session, shelf, matrix, parameters, seed, spark)

        yield train


def _put_entries(matrix: sparse.csr_matrix, shelf: Shelf) -> list[str]:
    """``(user, item, rating)`` of the stored entries, in files of a million; their names.

    Spark's confidence is ``1 + alpha * rating`` where `implicit`'s is the value itself.
    """
    names = []
    user = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    for first in range(0, matrix.nnz, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        rating = np.maximum(matrix.data[part] - 1, _SMALLEST).astype(np.float32)
        columns = {"user": user[part], "item": matrix.indices[part], "rating": rating}
        names.append(f"entries/{first:012}.feather")
        with shelf.put(names[-1]) as path:
            feather.write_feather(pa.table(columns), str(path))
    return names


def _read_entries(
    batches: Iterator[pa.RecordBatch], *, shelf: Shelf, names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            with shelf.local(names[number]) as path:
                yield from feather.read_table(path, memory_map=False).to_batches()


def _item_factors(
    session: "SparkSession",
    shelf: Shelf,
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
    names = _put_entries(matrix, shelf)
    if not shelf.is_in_a_bucket:
        # ALS cuts its lineage there every ten iterations; Spark itself cannot write into a bucket.
        session.sparkContext.setCheckpointDir(str(shelf.keep("checkpoints")))
    task = functools.partial(_read_entries, shelf=shelf.of_workers, names=names)
    numbers = session.range(0, len(names), 1, max(len(names), 1))
    entries = numbers.mapInArrow(task, "user int, item int, rating float")
    found = als.fit(entries).itemFactors.toArrow()
    factors = np.zeros((matrix.shape[1], parameters.factors), dtype=np.float32)
    vectors = found["features"].combine_chunks().flatten().to_numpy()
    factors[found["id"].to_numpy()] = vectors.reshape(len(found), parameters.factors)
    return factors
