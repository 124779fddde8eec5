"""The admin application: public pages, the API behind its token, its errors. It listens nowhere."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from filature import __version__
from filature.admin.accounts import Accounts
from filature.admin.auth import TokenRequired, error_response
from filature.admin.keys import Keys
from filature.admin.ledger import LedgerRoutes
from filature.admin.models import ErrorShown
from filature.admin.payouts import PayoutRoutes
from filature.admin.prices import Prices
from filature.admin.usage import Usage
from filature.admin.worker_tokens import WorkerTokenRoutes
from filature.admin.workers import Registry, WorkerRoutes
from filature.errors import (
    FilatureError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
)
from filature.store.store import Store
from filature.store.wall import wall_ms
from filature.telemetry.metrics import CONTENT_TYPE, Metrics

API: Final = "/admin/v1"
DESCRIPTION_PATH: Final = f"{API}/openapi.json"
_DESCRIPTION: Final = """Accounts, keys, workers and their tokens, payouts, prices, usage and the ledger of one proxy.

Amounts come twice: in credits as exact decimals in strings, and as integers of nano-credits in members that
end in `_nano`. A request gives one of the two. Times are Unix milliseconds. Errors are in OpenAI's envelope.
"""


def create_app(
    store: Store | None,
    *,
    token: str | None = None,
    metrics: Metrics | None = None,
    workers: Registry | None = None,
    health: Callable[[], dict[str, object]] = dict,
    clock: Callable[[], int] = wall_ms,
) -> FastAPI:
    """``/health``, ``/metrics`` of ``metrics``, and the API over ``store`` for those who have ``token``.

    ``health`` gives more that ``/health`` shows; ``workers`` are those of a proxy that runs. There is no
    documentation page: FastAPI's would load programs from elsewhere.
    """
    app = FastAPI(
        title="Filature admin API",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=DESCRIPTION_PATH if store is not None else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        routes=_public_routes(metrics, health),
    )
    if store is not None:
        assert token, "an API over a ledger has a token"
        resources = (
            Accounts(store, clock),
            Keys(store, clock),
            WorkerTokenRoutes(store),
            WorkerRoutes(store, workers),
            PayoutRoutes(store, clock),
            Prices(store, workers),
            Usage(store),
            LedgerRoutes(store, clock),
        )
        api = APIRouter(prefix=API, responses={"default": {"model": ErrorShown}})
        for resource in resources:
            api.include_router(resource.router())
        app.include_router(api)
        app.add_middleware(
            TokenRequired, token=token, prefix="/admin", public=frozenset({DESCRIPTION_PATH})
        )
        _describe(app)
    app.add_exception_handler(FilatureError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _defect)
    return app


def _operation_id(route: APIRoute) -> str:
    """``accounts_create``."""
    return f"{route.tags[0]}_{route.name}"


def _public_routes(
    metrics: Metrics | None, health: Callable[[], dict[str, object]]
) -> list[BaseRoute]:
    async def show_health(request: Request) -> Response:
        return JSONResponse({"status": "ok"} | health())

    routes: list[BaseRoute] = [Route("/health", show_health)]
    if metrics is not None:
        shown, registry = metrics, metrics.registry()

        async def show_metrics(request: Request) -> Response:
            return Response(shown.exposition(registry), headers={"content-type": CONTENT_TYPE})

        routes.append(Route("/metrics", show_metrics))
    return routes


def _describe(app: FastAPI) -> None:
    """The description with its token, and without the errors that FastAPI would give by itself."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            components = schema["components"]
            for unused in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(unused, None)
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to extend it


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FilatureError)
    return error_response(error)


async def _not_valid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong, named as in the request."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return error_response(InvalidRequest(f"The body is no JSON: {message}."))
    if not place and not request.headers.get("content-type", "").startswith("application/json"):
        return error_response(InvalidRequest("Send a body with content-type: application/json."))
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        message = "unknown field"
    named = f"{param}: {message}" if param else f"The body: {message}"
    return error_response(InvalidRequest(f"{named}.", param=param))


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        response = error_response(
            MethodNotAllowed(f"{request.method} is not for this path.", allow=allow)
        )
        response.headers["allow"] = allow
        return response
    if error.status_code == 404:
        return error_response(NotFound("Not found; here are /metrics, /health and /admin/v1/."))
    return error_response(InvalidRequest(str(error.detail)))


async def _defect(request: Request, error: Exception) -> Response:
    """What is logged by the server."""
    return error_response(InternalError())
