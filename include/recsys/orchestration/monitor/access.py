"""Who may do what on the pages, and what a browser may do with them."""

from typing import Final
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_variable,
    requires_access_view,
)
from fastapi import HTTPException, Request

from recsys.orchestration.monitor.visit import visit_of

# Scripts and styles are this package's files, nothing comes from elsewhere, and no page holds any
# of its own.
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# Reports bring style and pictures with them, inline, and have no script.
REPORT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'; sandbox allow-same-origin"
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Whoever may see what the cluster does may see these pages. A permission for DAGs would not do:
# Airflow reads which DAG is meant from the request, so whoever may see one could name that.
may_watch = requires_access_view(AccessView.CLUSTER_ACTIVITY)
# A preview shows what a customer gets, which is not for viewers: whoever may read Airflow's
# variables (operators and above) sees more than that.
may_preview = requires_access_variable("GET")
# What can be undone is for operators: whoever may change Airflow's variables.
may_act = requires_access_variable("PUT")
# To forget a customer is not undone: for those who may delete Airflow's variables.
may_forget = requires_access_variable("DELETE")


async def can_forget(request: Request, user: GetUserDep) -> bool:
    """Whether `may_forget` lets them: who they are that asked is for nobody else."""
    try:
        await may_forget(request, user)
    except HTTPException:
        return False
    return True


async def from_this_page(request: Request) -> None:
    """A browser that is logged in must not do anything because another site's page says so."""
    site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site != "same-origin" and (site is not None or foreign):
        raise HTTPException(403, visit_of(request).say("problem.foreign_form"))
