"""The comparator of `bench serve`: uvicorn and FastAPI around the same chain, and nothing else.

No admission, no keys, no deadlines, no middleware: a handler that calls the recommender, in the event loop or, where
requests may share passes through the models, in the same engine. What the service tells Python about threads and
garbage it is told, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from fastapi import FastAPI, Response

from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.serving.config import ServiceConfig

MAIN = "import sys; from foretaste.jobs.plain_app import main; main(sys.argv[1], int(sys.argv[2]))"
"""What a process of it runs, with a ServiceConfig as JSON and a port; as many share the port as `num_replicas`."""

_CONFIG = "FORETASTE_PLAIN_CONFIG"


def plain_app(config: ServiceConfig) -> FastAPI:
    """Make the app; with `serving.batch_requests` above 1 as many requests are computed at a time."""
    import torch

    from foretaste.serving.app import view_source
    from foretaste.serving.engine import Engine
    from foretaste.serving.service import open_service

    torch.set_num_threads(1)
    unguarded = config.serving.budget.model_copy(update={"workers": 0})
    config = config.model_copy(update={"serving": config.serving.model_copy(update={"budget": unguarded})})
    service = open_service(config, source=view_source(config))
    largest = config.serving.batch_requests
    engine = Engine() if largest > 1 else None

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if engine is not None:
            engine.close()
        service.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/recommend")
    async def recommend(body: RecommendRequest) -> Response:
        if engine is None:
            return Response(service.recommend(body).model_dump_json(), media_type="application/json")
        answer = await asyncio.wrap_future(engine.submit(lambda: service.recommend(body).model_dump_json()))
        return Response(answer, media_type="application/json")

    @app.post("/v1/events")
    async def events(body: EventsRequest) -> Response:
        answer = await asyncio.to_thread(service.accept, body)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    return app


def main(config: str, port: int) -> None:
    """Serve in this process, or in processes of its own where there are to be several."""
    import uvicorn

    os.environ[_CONFIG] = config
    uvicorn.run(
        "foretaste.jobs.plain_app:from_environment",
        factory=True,
        host="127.0.0.1",
        port=port,
        workers=ServiceConfig.model_validate_json(config).serving.num_replicas,
        log_level="warning",
        access_log=False,
    )


def from_environment() -> FastAPI:
    """Make the app in a process that uvicorn starts."""
    from foretaste.serving.app import SWITCH_SECONDS
    from foretaste.serving.garbage import set_apart

    sys.setswitchinterval(SWITCH_SECONDS)
    app = plain_app(ServiceConfig.model_validate_json(os.environ[_CONFIG]))
    set_apart()
    return app
