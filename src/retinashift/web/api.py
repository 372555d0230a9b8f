"""The page's HTTP interface: plain requests in, picture bytes or JSON out. `/docs` describes it offline."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.formparsers import MultiPartParser

from retinashift import __version__
from retinashift.web.jobs import Busy, Job, JobQueue
from retinashift.web.request_filter import RequestFilter
from retinashift.web.settings import PageSettings, UpscaleOptions
from retinashift.web.work import Upload, Worker

PAGE = Path(__file__).parent / "page"
_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _BINARY, "reference": _BINARY}}},
    "application/octet-stream": {"schema": _BINARY},
}}}  # fmt: skip
Options = Annotated[UpscaleOptions, Query()]


def build_page(settings: PageSettings, prepare: Callable[[], None]) -> tuple[RequestFilter, JobQueue]:
    """The page behind its filter, and its queue, which first calls `prepare` and loads the checkpoint."""
    worker, queue = Worker(settings), JobQueue(settings.max_waiting, settings.max_stored)
    for first in (prepare, worker.pipeline):
        queue.todo.put(first)
    purpose = "Super-resolution of retinal photographs. For research use, not for diagnosis."
    api = FastAPI(title="RetinaShift", version=__version__, description=purpose, docs_url=None, redoc_url=None)
    MultiPartParser.spool_max_size = settings.max_upload  # uploads stay in memory, none goes to a temporary file

    async def submitted(request: Request, options: UpscaleOptions, most: int) -> Job:
        """Queue the photographs of a request: the form's fields `file` and `reference`, or the body."""
        given: dict[str, str] = {}
        files: list[Upload] = []
        truth: list[Upload] = []
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            for field, value in (await request.form(max_files=settings.max_files + 1, max_fields=32)).multi_items():
                if isinstance(value, str):
                    given[field] = value
                else:
                    kind = truth if field == "reference" else files
                    kind.append((_safe(value.filename or field), await value.read()))
        elif data := await request.body():
            files.append((_safe(options.name), data))
        options = _merged(options, given)
        if not files:
            raise HTTPException(422, "no photograph was sent: a multipart field file, or the bytes as the body")
        if len(files) > most:
            raise HTTPException(422, f"{len(files)} photographs are above the limit of {most} in one request")
        if truth and len(files) + len(truth) > 2:
            raise HTTPException(422, "a reference goes with one photograph; upscale its own alone")
        held = sum(len(data) for _, data in files + truth)
        return queue.submit(lambda progress: worker.upscale(files, options, truth, progress), held)

    def known(id: str) -> Job:
        if job := queue.get(id):
            return job
        raise HTTPException(404, "there is no such job (results end with the page)")

    @api.get("/api/checkpoints", summary="Checkpoints by name, with modes and options; limits of requests")
    def checkpoints() -> dict[str, Any]:
        limits = {"pixels": settings.max_pixels, "bytes": settings.max_upload, "count": settings.max_files}
        return {"version": __version__, "limits": limits, "checkpoints": worker.checkpoints()}

    @api.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @api.post("/api/upscale", summary="Upscale one photograph and wait for the result", openapi_extra=_BODY)
    async def upscale(request: Request, options: Options) -> Response:
        job = await submitted(request, options, most=1)
        try:
            while not job.ended.is_set():
                if await request.is_disconnected():
                    raise HTTPException(499, "the client went away")
                await asyncio.sleep(0.02)
            error = job.text if job.state != "done" else job.photos[0].error
            if error:
                raise HTTPException(503 if job.cancelled else 422, error)
            if "application/zip" in request.headers.get("accept", ""):
                return _zipped(job)
            name = job.photos[0].facts["saved"]
            return _file(job, 0, name, {"content-disposition": f"attachment; filename*=utf-8''{quote(name)}"})
        finally:
            queue.forget(job.id)

    @api.post("/api/jobs", status_code=202, summary="Queue photographs; answers the job's id", openapi_extra=_BODY)
    async def submit(request: Request, options: Options) -> dict[str, str]:
        return {"id": (await submitted(request, options, settings.max_files)).id}

    @api.get("/api/jobs/{id}", summary="State and progress of a job")
    def state(id: str) -> dict[str, Any]:
        job = known(id)
        photos = [{"name": photo.name, "error": photo.error, **photo.facts} for photo in job.photos]
        return {"state": job.state, "progress": job.progress, "text": job.text, "before": queue.unfinished(job),
                "photos": photos}  # fmt: skip

    @api.delete("/api/jobs/{id}", summary="Cancel a job, or forget its results", status_code=204)
    def forget(id: str) -> None:
        queue.forget(id)

    @api.get("/api/jobs/{id}/all.zip", summary="All files of a job")
    def zipped(id: str) -> Response:
        return _zipped(known(id))

    @api.get("/api/jobs/{id}/{number}/{name}", summary="One file of a result")
    def file(id: str, number: int, name: str) -> Response:
        return _file(known(id), number, name)

    @api.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503, headers={"retry-after": "5"})

    api.mount("/", StaticFiles(directory=PAGE, html=True))
    return RequestFilter(api, settings), queue


def _merged(options: UpscaleOptions, given: dict[str, str]) -> UpscaleOptions:
    """The options of the query with those of the form; 422 names the field that is wrong."""
    try:
        return UpscaleOptions.model_validate({**options.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise HTTPException(422, "; ".join(lines)) from None


def _safe(name: str) -> str:
    """A file name without folders and control characters, in any script, at most 120 characters.

    >>> _safe("../../etc/passwd"), _safe("глаз 1.png")
    ('passwd', 'глаз 1.png')
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in base if c.isprintable()).lstrip(". ")[-120:] or "photograph"


def _file(job: Job, number: int, name: str, headers: dict[str, str] | None = None) -> Response:
    files = job.photos[number].files if 0 <= number < len(job.photos) else {}
    if name not in files:
        raise HTTPException(404, "there is no such file")
    kept = {"content-security-policy": "sandbox", "cache-control": "no-store", **(headers or {})}
    return Response(files[name], media_type=guess_type(name)[0] or "application/octet-stream", headers=kept)


def _zipped(job: Job) -> Response:
    """Results, records and maps; those of several photographs begin with their number."""
    packed, photos = BytesIO(), [photo for photo in job.photos if not photo.error]
    with zipfile.ZipFile(packed, "w") as archive:  # pictures are compressed already
        for number, photo in enumerate(photos, 1):
            for name in photo.facts["files"]:
                archive.writestr(name if len(photos) == 1 else f"{number}_{name}", photo.files[name])
    return Response(packed.getvalue(), media_type="application/zip", headers={"cache-control": "no-store"})
