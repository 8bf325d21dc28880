"""The refresh's heavy steps and ALS on Spark, for shops beyond one machine's memory.

``engine: spark`` in ``config/data.yaml`` and ``config/training.yaml`` leads here. What a row, an
event or a split is stays defined in `recsys.data`: Spark deals the work out in pieces and brings
the rows of a user together, and each piece goes through the same functions as the whole does
without Spark. PySpark is imported inside functions only: it is no requirement of the product.
"""
