"""What the shop's rules do: for the bearer of the admin token."""

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Depends

from recsys.merchandising.rules import Rule
from serving.problems import documented
from serving.routes.administration import require_admin
from serving.schemas import RuleReport, RulesReport, WarningReport
from serving.service import Running

# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["rules"], dependencies=[Depends(require_admin)])


@router.get("/rules", responses=documented(401, 403, 429, 503), summary="The shop's rules")
async def show_rules(service: Running) -> RulesReport:
    """Those in service in this worker, with what they ask for and will not get."""
    followed, now = service.rules, datetime.now(UTC)
    warnings = await asyncio.to_thread(service.rule_warnings)
    return RulesReport(
        sha256=followed.current.sha256,
        problem=followed.problem,
        rules=[_report(rule, now) for rule in followed.current.rules],
        warnings=[
            WarningReport(rule=one.rule, kind=one.kind, key=one.key, sentence=one.sentence)
            for one in warnings
        ],
    )


def _report(rule: Rule, now: datetime) -> RuleReport:
    given = rule.model_dump(mode="json", exclude_defaults=True)
    strength = {"strength": rule.strength} if rule.action in ("boost", "bury") else {}
    return RuleReport.model_validate({**given, **strength, "state": rule.state(now)})
