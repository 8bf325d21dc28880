"""The only part of `recsys` that knows Airflow: DAG defaults, callbacks, the run mirror."""
