"""Bringing a model into service: gate, approval, canary, reload, verify, roll back, remember.

Talks to the service over HTTP only. `job` has the steps that the DAG calls.
"""
