"""MLflow's server behind a guard as of a team's proxy: 401 for whoever shows neither the password nor the token."""

import base64
import os
from typing import Any

from mlflow.server.fastapi_app import app as mlflow_app

USER, PASSWORD = os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode())
ALLOWED = (b"Basic " + BASIC, b"Bearer " + os.environ["GUARD_TOKEN"].encode())


async def _guarded(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") not in ALLOWED:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"who are you?"})
        return
    await mlflow_app(scope, receive, send)


def app() -> Any:
    """The ASGI application of `mlflow server --app-name guarded`."""
    return _guarded
