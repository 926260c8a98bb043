"""HTTP in front of the service: bodies, headers and errors. The app is built in a function, Ray is not known here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute
from polars.exceptions import PanicException
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretaste.contracts.tenants import inside
from foretaste.contracts.wire import (
    ConsentAnswer,
    ConsentRequest,
    DeletionAnswer,
    EventsAnswer,
    EventsRequest,
    Id,
    IntentAnswer,
    IntentRequest,
    MemberId,
    MergeAnswer,
    MergeRequest,
    NextRequest,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
)
from foretaste.contracts.wire_models import ModelsAnswer, PromoteRequest
from foretaste.contracts.wire_records import AckAnswer, AckRequest, ReplayAnswer, ReplayRequest, SessionAnswer
from foretaste.contracts.wire_rewards import RewardsAnswer, RewardsRequest
from foretaste.serving.counting import add_metrics, count_requests
from foretaste.serving.gate import Gate, caller
from foretaste.serving.keys import KeyRing
from foretaste.serving.logs import AccessLog
from foretaste.serving.metrics import Metrics
from foretaste.serving.nesting import checked_depth
from foretaste.serving.openapi import document, problem_response
from foretaste.serving.problems import ECHO_KEY, REQUEST_ID, REQUEST_ID_KEY, RefusedError, install
from foretaste.serving.shedding import Admission, SheddingConfig, install_shedding
from foretaste.serving.tenancy import request_inside
from foretaste.serving.tracing import TraceRequests, Tracing

HOUSEKEEPING_SECONDS = 20.0
T = TypeVar("T")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    what = {
        400: "not JSON",
        404: "there is no such decision, or release",
        409: "what is stored does not give the decision again, or the release is refused",
        413: "body too large",
        422: "a field is wrong; `errors` names it",
        429: "too many requests; try again after Retry-After",
        503: "a log that the request needs does not take it; try again after Retry-After",
    }
    return {status: problem_response(what[status]) for status in statuses}


_ERRORS = _problems(400, 413, 422)
_SHED_ERRORS = _problems(400, 413, 422, 429, 503)
_STORE_ERRORS = _problems(400, 413, 422, 503)
_DELETION_ERRORS = _problems(422, 503)
_NOT_FOUND = _problems(404, 422, 503)
_log = logging.getLogger(__name__)


class Answers(Protocol):
    """What the app asks; `service.Service` is it. What it is given carries its tenant, see `tenancy`."""

    def accept(self, request: EventsRequest, *, tenant: str) -> EventsAnswer:
        """Store events of a tenant; may block on the disk."""
        ...

    def consent(self, member_id: str, request: ConsentRequest) -> ConsentAnswer:
        """Note whether anything of a member may be stored; may block on the disk."""
        ...

    def merge(self, member_id: str, request: MergeRequest) -> MergeAnswer:
        """Make a guest's events the member's; may block on the disk."""
        ...

    def delete(self, member_id: str) -> DeletionAnswer:
        """Forget a member; may block on the disk."""
        ...

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """Answer a request; computes for a few milliseconds, in any of several threads."""
        ...

    def next(self, request: NextRequest) -> RecommendAnswer:
        """Go on after a list; may block on the disk."""
        ...

    def rank(self, request: RankRequest) -> RankAnswer:
        """Order given titles; computes for a few milliseconds."""
        ...

    def intents(self, request: IntentRequest) -> IntentAnswer:
        """Say what an actor is probably here for; computes for a few milliseconds."""
        ...

    def ack(self, decision_id: str, request: AckRequest, *, tenant: str) -> AckAnswer | None:
        """Take note of what was shown of a list; None where the tenant has no such decision; may block on the disk."""
        ...

    def rewards(self, request: RewardsRequest, *, tenant: str) -> RewardsAnswer:
        """Store feedback on decisions of a tenant; may block on the disk."""
        ...

    def replay(self, decision_id: str, request: ReplayRequest, *, tenant: str) -> ReplayAnswer | None:
        """Make a decision again; None where the tenant has no such one; computes for a while."""
        ...

    def session(self, session_id: str, member_id: str | None) -> SessionAnswer:
        """Say what an answer would read; may block on the disk."""
        ...

    def decision(self, decision_id: str, *, tenant: str) -> dict[str, Any] | None:
        """Read a logged decision of a tenant; may block on the disk."""
        ...

    def models(self) -> ModelsAnswer:
        """Say what is filed and what answers whom; may block on the disk."""
        ...

    def promote(self, name: str, request: PromoteRequest) -> ModelsAnswer | None:
        """Let a release answer; None where there is no such one; loads it."""
        ...

    def roll_back(self, name: str) -> ModelsAnswer | None:
        """Take a release back from what it does; None where there is no such one; may load another."""
        ...

    def ready(self) -> dict[str, Any]:
        """Say what is served and what is missing; its `ready` says whether to send requests."""
        ...

    def housekeep(self) -> None:
        """Do what is due; may block."""
        ...

    def close(self) -> None:
        """Leave everything durable."""
        ...


def build_app(
    service: Answers,
    *,
    max_body_bytes: int,
    echo_request_id: bool = True,
    housekeeping_seconds: float = HOUSEKEEPING_SECONDS,
    keys: KeyRing | None = None,
    rate_share: float = 1.0,
    admission: Admission | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Make the app around a service, which it closes when it shuts down.

    With `keys` whoever asks has to show one; `rate_share` of a tenant's rate is this process's to give. `admission`
    says which requests for an answer are computed; by default it has its own defaults.
    `tracing` is closed with the app.
    `metrics` are told at /metrics; what the service itself counts is there where they are the service's.
    Ray Serve's proxy makes and echoes X-Request-ID itself, and adds to what the app sets: there it is not to echo.
    """

    admitted = admission or Admission(SheddingConfig(), timer=time.perf_counter)
    counts = metrics or Metrics()
    counts.watch_queue(admitted)
    admitted.on_shed = counts.shed

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_housekeeping(service, housekeeping_seconds))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        admitted.close()
        await asyncio.to_thread(service.close)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(title="foretaste", version="1", lifespan=lifespan, redoc_url=None)
    router = APIRouter(route_class=_route(max_body_bytes))
    _add_v1(router, service, admitted)
    _add_models(router, service)
    app.include_router(router)
    _add_health(app, service)
    add_metrics(app, counts)
    install(app)
    document(app, keys=keys is not None)
    install_shedding(app, admitted)
    app.add_middleware(Gate, keys=keys, share=rate_share)
    count_requests(app, counts)
    if tracing is not None:
        app.add_middleware(TraceRequests, tracing=tracing)
    app.add_middleware(AccessLog)
    app.add_middleware(RequestId, echo=echo_request_id)
    return app


def _add_v1(router: APIRouter, service: Answers, admission: Admission) -> None:
    @router.post("/v1/events", response_model=EventsAnswer, responses=_STORE_ERRORS)
    async def events(request: Request, body: EventsRequest) -> Response:
        """Store events. Durable before it answers; the same event_id again changes nothing."""
        return _json((await asyncio.to_thread(service.accept, body, tenant=_tenant(request))).model_dump_json())

    @router.post("/v1/rewards", response_model=RewardsAnswer, responses=_STORE_ERRORS)
    async def rewards(request: Request, body: RewardsRequest) -> Response:
        """Store feedback that events do not tell. Durable before it answers; the same reward_id changes nothing."""
        return _json((await asyncio.to_thread(service.rewards, body, tenant=_tenant(request))).model_dump_json())

    @router.post("/v1/recommend", response_model=RecommendAnswer, responses=_SHED_ERRORS)
    async def recommend(request: Request, body: RecommendRequest) -> Response:
        """Answer with a list, how it was chosen and what it knew."""
        asked = request_inside(body, _tenant(request))
        return _json(await admission.run(lambda: service.recommend(asked).model_dump_json()))

    @router.post("/v1/recommend/next", response_model=RecommendAnswer, responses=_SHED_ERRORS)
    async def recommend_next(request: Request, body: NextRequest) -> Response:
        """Go on after a list, without a title that it or those before it had; what happened since counts."""
        asked = request_inside(body, _tenant(request))
        return _json(await admission.run(lambda: service.next(asked).model_dump_json()))

    @router.post("/v1/rank", response_model=RankAnswer, responses=_SHED_ERRORS)
    async def rank(request: Request, body: RankRequest) -> Response:
        """Order given titles for a member; those that may not be shown are named and left out."""
        asked = request_inside(body, _tenant(request))
        return _json(await admission.run(lambda: service.rank(asked).model_dump_json()))

    @router.post("/v1/intent", response_model=IntentAnswer, responses=_SHED_ERRORS)
    async def intent(request: Request, body: IntentRequest) -> Response:
        """Say what a member or a guest is probably here for: intents, attention, segment, layout. Logs nothing."""
        asked = request_inside(body, _tenant(request))
        return _json(await admission.run(lambda: service.intents(asked).model_dump_json()))

    @router.post("/v1/members/{member_id:path}/merge", response_model=MergeAnswer, responses=_STORE_ERRORS)
    async def merge(request: Request, member_id: MemberId, body: MergeRequest) -> Response:
        """Make what a guest did the member's. Safe to repeat; adds what the guest did in between."""
        of = _tenant(request)
        found = await asyncio.to_thread(service.merge, inside(member_id, of), request_inside(body, of))
        return _json(found.model_dump_json())

    @router.put("/v1/members/{member_id:path}/consent", response_model=ConsentAnswer, responses=_ERRORS)
    async def consent(request: Request, member_id: MemberId, body: ConsentRequest) -> Response:
        """Note whether anything of a member may be stored from now on. What was stored stays until they are deleted."""
        of = inside(member_id, _tenant(request))
        return _json((await asyncio.to_thread(service.consent, of, body)).model_dump_json())

    @router.delete("/v1/members/{member_id:path}", response_model=DeletionAnswer, responses=_DELETION_ERRORS)
    async def delete(request: Request, member_id: MemberId) -> Response:
        """Forget a member: at once in all that answers read, with the next run in every table. Safe to repeat."""
        return _json((await asyncio.to_thread(service.delete, inside(member_id, _tenant(request)))).model_dump_json())

    @router.get("/v1/decisions/{decision_id}", response_model=dict[str, Any], responses=_NOT_FOUND)
    async def decision(request: Request, decision_id: str) -> Response:
        """Read a decision as it was logged."""
        found = await asyncio.to_thread(service.decision, decision_id, tenant=_tenant(request))
        return _json(orjson.dumps(_known(found, decision_id)))

    @router.post("/v1/decisions/{decision_id}/ack", response_model=AckAnswer, responses=_ERRORS | _NOT_FOUND)
    async def ack(request: Request, decision_id: str, body: AckRequest) -> Response:
        """Tell what of a list was really shown. Durable before it answers; safe to repeat, and to add to."""
        found = await asyncio.to_thread(service.ack, decision_id, body, tenant=_tenant(request))
        return _json(_known(found, decision_id).model_dump_json())

    @router.post(
        "/v1/decisions/{decision_id}/replay", response_model=ReplayAnswer, responses=_ERRORS | _problems(404, 409, 503)
    )
    async def replay(request: Request, decision_id: str, body: ReplayRequest | None = None) -> Response:
        """Make a logged decision again from what is stored; with a model named, say by stage what it would change."""
        asked = body or ReplayRequest()
        found = await asyncio.to_thread(service.replay, decision_id, asked, tenant=_tenant(request))
        return _json(_known(found, decision_id).model_dump_json())

    @router.get("/v1/sessions/{session_id:path}", response_model=SessionAnswer, responses=_DELETION_ERRORS)
    async def session(request: Request, session_id: Id, member_id: MemberId | None = None) -> Response:
        """Say what an answer for a member, or for the guest of a session, would read now. Stores nothing."""
        of = _tenant(request)
        who = (inside(session_id, of), None if member_id is None else inside(member_id, of))
        return _json((await asyncio.to_thread(service.session, *who)).model_dump_json())


def _add_models(router: APIRouter, service: Answers) -> None:
    changes = ThreadPoolExecutor(1, thread_name_prefix="models")  # each takes seconds, and those of events are few

    async def changed(change: Callable[[], ModelsAnswer | None], name: str) -> Response:
        found = await asyncio.get_running_loop().run_in_executor(changes, change)
        return _json(_known_release(found, name).model_dump_json())

    @router.get("/v1/models", response_model=ModelsAnswer, responses=_problems(422))
    async def models() -> Response:
        """Say which releases are filed, what answers whom, and what the replicas have loaded."""
        return _json((await asyncio.to_thread(service.models)).model_dump_json())

    @router.post("/v1/models/{name}/promote", response_model=ModelsAnswer, responses=_ERRORS | _problems(404, 409))
    async def promote(name: Id, body: PromoteRequest | None = None) -> Response:
        """Let a release answer everybody, a share of the members, or nobody; it is loaded and tried first.

        This process takes it up before it answers, the others with their next housekeeping. Safe to repeat.
        """
        return await changed(lambda: service.promote(name, body or PromoteRequest()), name)

    @router.post("/v1/models/{name}/rollback", response_model=ModelsAnswer, responses=_problems(404, 409, 422))
    async def rollback(name: Id) -> Response:
        """Take a release back: its arms end, or it is no shadow any more, or what answered before it answers again."""
        return await changed(lambda: service.roll_back(name), name)


def _known_release(found: ModelsAnswer | None, name: str) -> ModelsAnswer:
    if found is None:
        raise HTTPException(404, f"there is no release {name}")
    return found


def _tenant(request: Request) -> str:
    return caller(request).tenant


def _known(found: T | None, decision_id: str) -> T:
    if found is None:
        raise HTTPException(404, f"there is no decision {decision_id}")
    return found


def _add_health(app: FastAPI, service: Answers) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "live"}

    @app.get("/health/ready", response_model=dict[str, Any])
    async def ready() -> Response:
        """Say whether requests are answered, with which models, and what is missing."""
        found = service.ready()
        return _json(orjson.dumps(found), status=200 if found["ready"] else 503)


class RequestId:
    """Name each request by its X-Request-ID, or make one where there is none that can be echoed; echo it."""

    def __init__(self, app: ASGIApp, *, echo: bool) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        if not self._echo:
            await self._app({**scope, REQUEST_ID_KEY: wanted}, receive, send)
            return
        request_id = wanted if re.fullmatch(r"[\x21-\x7e]{1,128}", wanted) else uuid.uuid4().hex
        scope[REQUEST_ID_KEY], scope[ECHO_KEY] = request_id, True

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _route(max_body_bytes: int) -> type[APIRoute]:
    """A route that takes no unknown query, whose bodies are bounded and read by orjson, which knows no NaN and no
    depth without end.
    """

    class BoundedRequest(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_body"):
                chunks, size = [], 0
                async for chunk in self.stream():
                    size += len(chunk)
                    if size > max_body_bytes:
                        raise HTTPException(413, f"the body has more than {max_body_bytes} bytes")
                    chunks.append(chunk)
                self._body = b"".join(chunks)
            return self._body

        async def json(self) -> Any:
            return checked_depth(orjson.loads(await self.body()))

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()
            known = {field.alias for field in self.dependant.query_params}

            async def handle_bounded(request: Request) -> Response:
                for name in request.query_params:
                    if name not in known:  # a name that is misspelt would ask for something else
                        raise RefusedError(name, f"there is no query parameter of that name; there are {sorted(known)}")
                response: Response = await handle(BoundedRequest(request.scope, request.receive))
                return response

            return handle_bounded

    return BoundedRoute


def _json(body: bytes | str, *, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json")


async def _housekeeping(service: Answers, every_seconds: float) -> None:
    while True:
        await asyncio.sleep(every_seconds)
        try:
            await asyncio.to_thread(service.housekeep)
        except (Exception, PanicException):  # of polars, and no Exception: it would end housekeeping for good
            _log.exception("housekeeping failed and is tried again in %s s", every_seconds)
