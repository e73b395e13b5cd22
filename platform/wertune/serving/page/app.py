"""The page's server: a recording in, two texts, where they differ and when it is said out, within serving's limits."""

import threading
import time
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from wertune.base.errors import ConfigError, RequestError, WertuneError
from wertune.base.text import is_mark, letter_by_letter
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.serving.listener import Voice, text_of
from wertune.serving.request import AudioFiles, read_request

FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/recorder.js": "recorder.js"}
LOCAL = ("localhost", "127.0.0.1", "[::1]")
# Nothing from elsewhere is loaded; a recording is played from a blob.
CONTENT_POLICY = "default-src 'self'; media-src blob:; img-src data:; frame-ancestors 'none'; form-action 'none'"
AUDIO_TYPE = "application/octet-stream"

Words = list[tuple[str, bool]]


def make_app(voices: Sequence[Voice], host: str) -> FastAPI:
    """The page for two models; the limits are the second one's, which is the version to be tried."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    limits = voices[-1].limits
    lock = threading.Lock()  # bitsandbytes keeps state in the layers
    if host in LOCAL:  # or any web site could ask in the name of a host that it lets point here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))

    @app.middleware("http")
    async def guarded(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    for path, name in FILES.items():
        file = Path(__file__).with_name(name)
        app.add_route(path, lambda _, file=file: FileResponse(file), methods=["GET"])  # type: ignore[misc]

    @app.get("/about")
    def about() -> dict[str, Any]:
        return {
            "names": [v.name for v in voices],
            "kinds": [v.kind for v in voices],
            "limits": limits.model_dump(mode="json"),
        }

    @app.post("/transcribe")
    async def transcribe(request: Request) -> JSONResponse:
        # A form of another site cannot send this type without asking first, and is not allowed to.
        if request.headers.get("content-type") != AUDIO_TYPE:
            return _refusal(f"the request's type must be {AUDIO_TYPE}", 415)
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limits.max_bytes:
                rule = f"the recording has more than {limits.max_bytes / 2**20:g} MiB, which is the limit"
                return _refusal(f"{rule}; cut it, or send it as ogg/opus", 413)
        try:
            return JSONResponse(await run_in_threadpool(_answer, voices, bytes(data), lock))
        except WertuneError as error:
            return _refusal(str(error).removeprefix("row 1 of 1: "), 400)

    return app


def _refusal(reason: str, status: int) -> JSONResponse:
    return JSONResponse({"reason": reason}, status_code=status)


def _answer(voices: Sequence[Voice], data: bytes, lock: threading.Lock) -> dict[str, Any]:
    if not data:
        raise RequestError("the recording is empty; record again or choose another file")
    texts, spoken, seconds = [], [], []
    with lock:  # decoding included: a small file may grow to a gigabyte
        (samples,) = read_request([{"audio": data}], voices[-1].limits, AudioFiles(served=True))
        for voice in voices:
            started = time.perf_counter()
            (segments,) = voice.write([samples])
            texts.append(text_of(segments))
            spoken.append([[each.start_s, each.text] for each in segments if each.text])
            seconds.append(time.perf_counter() - started)
    answers = [
        {"name": voice.name, "text": text, "words": words, "segments": segments, "seconds": took}
        for voice, text, words, segments, took in zip(voices, texts, differing(*texts), spoken, seconds, strict=True)
    ]
    return {"duration_s": samples.size / SAMPLE_RATE_HZ, "answers": answers}


def differing(left: str, right: str) -> tuple[Words, Words]:
    """The words of both texts as they stand, each with whether the other text says otherwise there.

    Capitals and punctuation make no difference; in scripts without blanks between words a letter is a word.
    """
    both = letter_by_letter(left).split(), letter_by_letter(right).split()
    first, second = ([_folded(word) for word in words] for words in both)
    marked: tuple[Words, Words] = ([], [])
    for kind, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        marked[0].extend((word, kind != "equal") for word in both[0][i:j])
        marked[1].extend((word, kind != "equal") for word in both[1][k:m])
    return marked


def _folded(word: str) -> str:
    return "".join(sign for sign in word if sign.isalnum() or is_mark(sign)).casefold() or word


def serve(voices: Sequence[Voice], host: str, port: int, say: Callable[[str], None]) -> None:
    """Answers until it is interrupted; ConfigError where the port is taken."""
    config = uvicorn.Config(make_app(voices, host), host=host, port=port, log_level="warning")
    try:
        taken = config.bind_socket()
    except SystemExit:  # uvicorn logs the reason and leaves
        rule = f"--port is {port}, but {host}:{port} cannot be had"
        raise ConfigError(f"{rule}; give another --port, or 0 for any that is free") from None
    say(f"{' beside '.join(voice.name for voice in reversed(voices))}: http://{host}:{taken.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[taken])
