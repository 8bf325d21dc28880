"""What the shop's rules do: for the bearer of the admin token."""

import asyncio
import dataclasses
from datetime import UTC, datetime
from typing import NamedTuple

from fastapi import APIRouter, Depends

from recsys.merchandising import reasons
from recsys.merchandising.placements import Placement
from recsys.merchandising.preview import Preview, preview
from recsys.merchandising.recommending import Recommended, Snapshot, sources_of
from recsys.merchandising.rules import Rule
from recsys.merchandising.snapshots import steered
from recsys.merchandising.steering import NO_STEERING, Steering, Steerings
from recsys.served_lists import SOURCES
from serving.answering import (
    begin,
    columns_of,
    parts_recommended_now,
    popular_beside_now,
    popular_now,
    recommend_now,
    similar_now,
    together_now,
    unknown_placement,
    who_of,
    why_recommended_now,
)
from serving.problems import ProblemError, documented
from serving.reports import (
    EffectReport,
    PreviewedProduct,
    PreviewReport,
    PreviewRequest,
    RuleReport,
    RulesReport,
    WarningReport,
)
from serving.routes.administration import require_admin
from serving.schemas import (
    Reason,
    RecommendRequest,
    Sentences,
    SimilarRequest,
    TogetherRequest,
)
from serving.served import DEMO
from serving.service import Note, Running, Service

Asked = RecommendRequest | SimilarRequest | TogetherRequest

_STRANGER = "guest"  # stands for many, of whom nothing is known

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


@router.post(
    "/rules/preview",
    responses=documented(400, 401, 403, 404, 413, 422, 429, 503),
    summary="A list without the rules and with them",
)
async def preview_rules(body: PreviewRequest, service: Running) -> PreviewReport:
    """What a customer would get, or what stands beside a product, at the moment or at another time;
    which rule did what is what is otherwise without it. Nothing is recorded."""
    _check_placement(service, body.placement)
    asked = _asked(service, body)
    # Not entered: what nobody sees is no row of the request log.
    note = Note(service, "rules_preview", asked.topk, body.user_id)
    snapshot = begin(note, asked)
    now = body.at or datetime.now(UTC)
    looked = await service.compute_many(_previewed, service, note, snapshot, asked, now)
    made = looked.preview
    return PreviewReport(
        placement=body.placement,
        at=now.astimezone(service.zone),
        model_id=snapshot.model_id,
        before=_products(snapshot, looked.before, [], []),
        after=_products(snapshot, looked.after, looked.reasons, looked.parts),
        effects=[
            EffectReport(
                rule=one.rule,
                what=one.what,
                product_id=snapshot.catalogue.item_ids[one.item],
                product_name=snapshot.catalogue.names[one.item],
                rank_without=one.without,
                rank_with=one.with_it,
            )
            for one in made.effects
        ],
        warnings=[
            f"rule {name}: it brings in {count} of {len(made.after)} products: mean fewer, or less"
            for name, count in made.crowding
        ],
    )


def _report(rule: Rule, now: datetime) -> RuleReport:
    given = rule.model_dump(mode="json", exclude_defaults=True)
    strength = {"strength": rule.strength} if rule.action in ("boost", "bury") else {}
    return RuleReport.model_validate({**given, **strength, "state": rule.state(now)})


def _check_placement(service: Service, placement: str | None) -> None:
    """Raises a 422 problem for a name that is written nowhere: what one looks at is no such list,
    though requests may give any name where the list of placements is open."""
    known = {*service.placements, *service.config.placements, DEMO}
    if placement is not None and placement not in known:
        raise unknown_placement(placement, known)


def _asked(service: Service, body: PreviewRequest) -> Asked:
    """The request whose answer is looked at: that of the placement's endpoint."""
    shared = body.model_dump(include={"placement", "topk"}, exclude_unset=True)
    placement = service.placements.get(body.placement or "", Placement())
    if body.product_id is None:
        return RecommendRequest(user_id=body.user_id or _STRANGER, **shared)
    if placement.endpoint == "bought_together":
        return TogetherRequest(product_ids=[body.product_id], user_id=body.user_id, **shared)
    return SimilarRequest(product_id=body.product_id, user_id=body.user_id, **shared)


class _Looked(NamedTuple):
    """A preview with both lists, and why each product of the second stands in it, and with what
    parts of its score, if that can be told."""

    preview: Preview
    before: Recommended
    after: Recommended
    reasons: list[reasons.Reason]
    parts: list[dict[str, float]]


def _previewed(
    service: Service, note: Note, snapshot: Snapshot, asked: Asked, now: datetime
) -> _Looked:
    bare = dataclasses.replace(snapshot, steerings=NO_STEERING)
    coming = steered(bare, service.rules.current, service.placements, now)
    steering = coming.steerings.of(asked.placement)
    placement = service.placements.get(asked.placement or "", Placement())

    lists: list[Recommended] = []

    def make(chosen: Steering | None) -> list[int]:
        steered_so = dataclasses.replace(snapshot, steerings=Steerings(other=chosen))
        lists.append(_listed(service, note, steered_so, asked))
        return lists[-1].ranked.items

    made = preview(snapshot.catalogue, steering.rules if steering else (), placement, make)
    before, after = lists[:2]  # what a preview makes first
    return _Looked(made, before, after, *_reasons(service, note, snapshot, asked, after))


def _reasons(
    service: Service, note: Note, snapshot: Snapshot, asked: Asked, made: Recommended
) -> tuple[list[reasons.Reason], list[dict[str, float]]]:
    """Why each product of `made` stands there, and the parts of its score; nothing where that is
    for somebody of the holdout, and beside a cart."""
    if note.held_out or isinstance(asked, TogetherRequest):
        return [], []
    if isinstance(asked, SimilarRequest):
        [item] = columns_of(snapshot, [asked.product_id]).tolist()
        why = reasons.why_similar(snapshot, item, made)
        return why, reasons.parts_similar(snapshot, item, made)
    about = service, snapshot, asked, who_of(asked.user_id, None), made
    return why_recommended_now(*about), parts_recommended_now(*about)


def _listed(service: Service, note: Note, snapshot: Snapshot, asked: Asked) -> Recommended:
    """As the route of what is `asked` makes it."""
    if isinstance(asked, RecommendRequest):
        make = popular_now if note.held_out else recommend_now
        return make(service, snapshot, asked, who_of(asked.user_id, None))
    product = asked.product_ids[0] if isinstance(asked, TogetherRequest) else asked.product_id
    items = columns_of(snapshot, [product])
    if not len(items):
        raise ProblemError(404, "The shop has no product of this id.")
    if note.held_out:
        return popular_beside_now(service, snapshot, asked, items)
    if isinstance(asked, TogetherRequest):
        return together_now(service, snapshot, asked, items)
    return similar_now(service, snapshot, asked, items)


def _products(
    snapshot: Snapshot,
    made: Recommended,
    why: list[reasons.Reason],
    parts: list[dict[str, float]],
) -> list[PreviewedProduct]:
    catalogue, ranked = snapshot.catalogue, made.ranked
    sources = sources_of(catalogue, made)
    return [
        PreviewedProduct(
            rank=place + 1,
            product_id=catalogue.item_ids[item],
            product_name=catalogue.names[item],
            brand=catalogue.brands[item],
            price=catalogue.prices[item],
            score=ranked.scores[place],
            source=SOURCES[sources[place]],
            reason=_reason(why[place], snapshot) if why else None,
            parts=parts[place] if parts else {},
        )
        for place, item in enumerate(ranked.items)
    ]


def _reason(why: reasons.Reason, snapshot: Snapshot) -> Reason:
    vietnamese, english = reasons.sentences(why, snapshot.catalogue)
    item, catalogue = why.item, snapshot.catalogue
    return Reason(
        kind=why.kind,
        product_id=None if item is None else catalogue.item_ids[item],
        product_name=None if item is None else catalogue.names[item],
        rule=why.rule,
        text=Sentences(vi=vietnamese, en=english),
    )
