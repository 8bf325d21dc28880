"""The refresh's heavy steps and ALS on Spark, for shops beyond one machine's memory.

``engine: spark`` leads here. What a row, an event or a split is stays defined in `recsys.data`;
Spark deals the work out in pieces. PySpark, no requirement of the product, is imported inside
functions only.
"""
