"""Deploys what MLflow's registry calls production: a receiver of its webhooks, of the standard library alone.

    WEBHOOK_SECRET=… python webhook_receiver.py --port 8085 -- ./deploy.sh

runs `./deploy.sh models:/<name>@production` whenever the alias is set. Nothing of a request is trusted before its
signature and its timestamp have been checked.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_AGE_S = 300
MAX_BODY_BYTES = 64 * 1024


class RefusedError(Exception):
    """A delivery that does not prove to come from the MLflow server, just now."""


def verify(secret: str, headers: Message, body: bytes, now_s: float) -> str:
    """The delivery's id, where its signature is MLflow's (HMAC-SHA256 over id, time and body) and its time recent."""
    delivery, sent = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
    signed = f"{delivery}.{sent}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    # In constant time: an early exit would tell how much of a guess is right.
    if not hmac.compare_digest(expected, headers.get("X-MLflow-Signature", "").encode()):
        raise RefusedError("the signature is not that of the shared secret")
    if not sent.isdecimal() or abs(now_s - int(sent)) > MAX_AGE_S:
        raise RefusedError(f"the timestamp is {sent}, but must be within {MAX_AGE_S} s of now; set both clocks")
    return delivery


def model_to_deploy(event: Mapping[str, Any], alias: str) -> str | None:
    """`models:/name@alias` where the event sets that alias.

    By the alias, not by the event's version: deliveries may overtake each other, and the registry knows the last word.
    """
    if (event.get("entity"), event.get("action")) != ("model_version_alias", "created"):
        return None
    return f"models:/{event['data']['name']}@{alias}" if event["data"]["alias"] == alias else None


class Deployments:
    """Runs the command for one model after the other, outside of the requests: MLflow waits 30 s for an answer."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._waiting: queue.Queue[str] = queue.Queue()
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True).start()

    def is_new(self, delivery: str, now_s: float) -> bool:
        """False for a delivery seen before: MLflow sends one again that got no answer, and so may who recorded it."""
        with self._lock:
            # Older ones are refused by their timestamp, which may also be as far ahead.
            self._seen = {known: seen_s for known, seen_s in self._seen.items() if now_s - seen_s <= 2 * MAX_AGE_S}
            is_new = delivery not in self._seen
            self._seen.setdefault(delivery, now_s)
            return is_new

    def add(self, model: str) -> None:
        self._waiting.put(model)

    def _work(self) -> None:
        while True:
            model = self._waiting.get()
            # A list and no shell: a model's name is no command.
            code = subprocess.run([*self._command, model], check=False).returncode
            print(f"{model}: the command ended with {code}", flush=True)


class Receiver(ThreadingHTTPServer):
    """Listens on 127.0.0.1: whatever holds the TLS certificate stands before it."""

    daemon_threads = True

    def __init__(self, port: int, secret: str, alias: str, deployments: Deployments) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.secret, self.alias, self.deployments = secret, alias, deployments


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to what it acted on or may ignore, 401 to what it does not believe, 400 to what it cannot read."""

    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(413, f"the body must have a length of at most {MAX_BODY_BYTES} bytes")
            return
        try:
            self._receive(self.rfile.read(int(length)))
            self.send_response(204)
            self.end_headers()
        except RefusedError as error:
            self.send_error(401, str(error))
        except (ValueError, KeyError, TypeError, AttributeError):
            self.send_error(400, "the body is not an event of MLflow's registry")

    def _receive(self, body: bytes) -> None:
        now_s = time.time()
        delivery = verify(self.server.secret, self.headers, body, now_s)
        model = model_to_deploy(json.loads(body), self.server.alias)
        if model and self.server.deployments.is_new(delivery, now_s):
            self.server.deployments.add(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8085)
    parser.add_argument("--alias", default="production")
    parser.add_argument("command", nargs="+", help="runs with models:/<name>@<alias> as its last argument")
    arguments = parser.parse_args()
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if len(secret) < 16:
        parser.error("WEBHOOK_SECRET must hold at least 16 characters: those that the webhook was registered with")
    Receiver(arguments.port, secret, arguments.alias, Deployments(arguments.command)).serve_forever()


if __name__ == "__main__":
    main()
