"""The handlers of files and batches: thin, one a path and method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from penstock.errors import InvalidFieldError, RequestError
from penstock.jobs.lines import URLS
from penstock.server import kinds
from penstock.server.lists import cursor, page_response
from penstock.server.service import Service
from penstock.server.tables import BATCHES, parse
from penstock.web.caller import caller_of
from penstock.web.errors import json_response
from penstock.web.limits import chunks, read_body

PURPOSE = "batch"
MAX_NAME = 255
CHUNK = 2**20


async def upload(service: Service, request: Request) -> Response:
    """Keep a file of requests for a batch."""
    data, owner = service.data(), caller_of(request.scope).name
    async with _form(request, service.config.server.max_file_bytes) as form:
        known = {"file", "purpose"}
        if others := sorted(set(form) - known):
            raise InvalidFieldError(f"Unknown form field {others[0][:60]!r}.", param=others[0][:60])
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise InvalidFieldError("The form field file is missing.", param="file")
        if purpose != PURPOSE:
            raise kinds.wrong("purpose", f"{PURPOSE!r}, the only one served here", purpose)
        name = (file.filename or "upload")[:MAX_NAME]
        content = _chunks(file.file)
        saved = await asyncio.to_thread(data.files.save, owner, name, PURPOSE, content)
    return json_response(saved)


async def files(service: Service, request: Request) -> Response:
    """The files of this key."""
    data, owner = service.data(), caller_of(request.scope).name
    purpose = request.query_params.get("purpose")
    return page_response(data.files.page(owner, *cursor(request), purpose))


async def file(service: Service, request: Request) -> Response:
    """What is known of a file."""
    return json_response(service.data().files.get(*_named(request)))


async def content(service: Service, request: Request) -> Response:
    """The bytes of a file."""
    data, (owner, id) = service.data(), _named(request)
    data.files.get(owner, id)
    return FileResponse(data.files.path(id), media_type="application/octet-stream")


async def delete_file(service: Service, request: Request) -> Response:
    """Forget a file."""
    data, (owner, id) = service.data(), _named(request)
    if batch := data.batches.uses(owner, id):
        raise RequestError(
            f"{id} is the input of {batch}, which is not finished.",
            cure="Cancel the batch first, or wait for its end.",
        )
    data.files.delete(owner, id)
    return json_response({"id": id, "object": "file", "deleted": True})


async def create_batch(service: Service, request: Request) -> Response:
    """Queue a batch of the requests in a file."""
    data, owner = service.data(), caller_of(request.scope).name
    body = parse(BATCHES, await read_body(request, service.config.server.max_body_bytes))
    endpoint = body["endpoint"]
    if endpoint not in URLS:
        raise kinds.wrong("endpoint", f"one of {', '.join(URLS)}", endpoint)
    if body["completion_window"] != "24h":
        raise kinds.wrong("completion_window", "'24h'", body["completion_window"])
    made = data.batches.create(owner, body["input_file_id"], endpoint, body["metadata"])
    return json_response(made)


async def batches(service: Service, request: Request) -> Response:
    """The batches of this key, the newest first."""
    owner = caller_of(request.scope).name
    return page_response(service.data().batches.page(owner, *cursor(request)))


async def batch(service: Service, request: Request) -> Response:
    """How a batch stands."""
    return json_response(service.data().batches.get(*_named(request)))


async def cancel_batch(service: Service, request: Request) -> Response:
    """End a batch; the results so far are kept."""
    return json_response(service.data().batches.cancel(*_named(request)))


def _named(request: Request) -> tuple[str, str]:
    """Owner and id."""
    return caller_of(request.scope).name, request.path_params["id"]


@asynccontextmanager
async def _form(request: Request, limit_bytes: int) -> AsyncGenerator[FormData, None]:
    """The parts of a multipart body; large ones wait on disk. Raises RequestError, and
    BodyTooLargeError as soon as it is known."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise RequestError(
            "The body is not multipart/form-data.",
            cure="Send the parts file and purpose, as curl -F does.",
        )
    stream = chunks(request, limit_bytes, "--max-file-bytes")
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, ValueError) as error:
        raise RequestError(
            f"The form cannot be read: {error}.", cure="Send it as curl -F does."
        ) from None
    try:
        yield form
    finally:
        await form.close()


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
