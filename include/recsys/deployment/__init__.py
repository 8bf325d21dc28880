"""Bringing a model into service: gate, reload, verify, roll back, remember.

Talks to the service over HTTP only.
"""

from recsys.deployment.config import DeploymentConfig, load_config
from recsys.deployment.deploy import DeploymentFailedError, deploy
from recsys.deployment.gate import Plan, plan_deployment
from recsys.deployment.history import read_history

__all__ = [
    "DeploymentConfig",
    "DeploymentFailedError",
    "Plan",
    "deploy",
    "load_config",
    "plan_deployment",
    "read_history",
]
