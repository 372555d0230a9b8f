"""The page's HTTP interface: plain requests in, picture bytes or JSON out. `/docs` describes it offline."""

import asyncio
import re
import zipfile
from functools import partial
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.formparsers import MultiPartParser

from retinashift import __version__
from retinashift.imaging.failures import one_line
from retinashift.inference import import_diffusers
from retinashift.web.jobs import Busy, Job, JobQueue, Missing, Progress, Result
from retinashift.web.settings import PageSettings, UpscaleOptions

_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _BINARY, "reference": _BINARY}}},
    "application/octet-stream": {"schema": _BINARY},
}}}  # fmt: skip
Options = Annotated[UpscaleOptions, Query()]


def build_page(settings: PageSettings) -> tuple[FastAPI, JobQueue]:
    """The page and its queue, which first loads the checkpoint."""

    def load() -> None:  # torch, in the thread of the jobs: the page answers meanwhile
        import_diffusers()
        from retinashift.web.work import opened

        opened(settings.folder(""), settings.device)

    queue = JobQueue()
    queue.todo.put(load)
    purpose = "Super-resolution of retinal photographs. For research use, not for diagnosis."
    api = FastAPI(title="RetinaShift", version=__version__, description=purpose, docs_url=None, redoc_url=None)
    MultiPartParser.spool_max_size = settings.max_upload  # uploads stay in memory, none goes to a temporary file

    async def submitted(request: Request, options: UpscaleOptions) -> Job:
        """Queue the photograph of a request: the form's fields `file` and `reference`, or the body."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            parts = (await request.form(max_files=2, max_fields=32)).multi_items()
        else:
            parts = [("file", UploadFile(BytesIO(await request.body()), filename=options.name))]
        given = {field: value for field, value in parts if isinstance(value, str)}
        options = UpscaleOptions.model_validate({**options.model_dump(exclude_unset=True), **given})
        sent = [(field, (_safe(v.filename or field), await v.read())) for field, v in parts if not isinstance(v, str)]
        files, held = dict(sent), sum(len(data) for _, (_, data) in sent)
        if sorted(field for field, _ in sent) not in (["file"], ["file", "reference"]) or not files["file"][1]:
            raise ValueError("one photograph is needed: the multipart field file (reference beside it), or the body")

        def work(progress: Progress) -> Result:
            from retinashift.web.work import upscale

            return upscale(settings, files["file"], options, files.get("reference"), progress)

        return queue.submit(work, held)

    @api.get("/api/checkpoints", summary="Checkpoints by name, with modes and options; limits of requests")
    def checkpoints() -> dict[str, Any]:
        limits = {"pixels": settings.max_pixels, "bytes": settings.max_upload}
        return {"version": __version__, "limits": limits, "checkpoints": settings.described()}

    @api.post("/api/upscale", summary="Upscale one photograph and wait for the result", openapi_extra=_BODY)
    async def upscale(request: Request, options: Options) -> Response:
        job = await submitted(request, options)
        try:
            while not job.ended.is_set():
                if await request.is_disconnected():
                    raise HTTPException(499, "the client went away")
                await asyncio.sleep(0.02)
            if job.state != "done":
                raise HTTPException(503 if job.cancelled else 422, job.text)
            packed = "application/zip" in request.headers.get("accept", "")
            return _zipped(job) if packed else _file(job, job.facts["saved"])
        finally:
            queue.forget(job.id)

    @api.post("/api/jobs", status_code=202, summary="Queue a photograph; answers the job's id", openapi_extra=_BODY)
    async def submit(request: Request, options: Options) -> dict[str, str]:
        return {"id": (await submitted(request, options)).id}

    @api.get("/api/jobs/{id}", summary="State and progress of a job")
    def state(id: str) -> dict[str, Any]:
        job = queue.get(id)
        own = {"state": job.state, "progress": job.progress, "text": job.text}
        return {**job.facts, **own, "before": queue.unfinished(job)}

    @api.delete("/api/jobs/{id}", summary="Cancel a job, or forget its results", status_code=204)
    def forget(id: str) -> None:
        queue.forget(id)

    @api.get("/api/jobs/{id}/{name}", summary="One file of a result")
    def file(id: str, name: str) -> Response:
        return _file(queue.get(id), name)

    for kind, status in ((Busy, 503), (Missing, 404), (ValueError, 422)):
        api.add_exception_handler(kind, partial(_refused, status))
    api.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))
    return api, queue


def _safe(name: str) -> str:
    """A file name that any system allows, without folders and control characters, at most 120 characters.

    >>> _safe("../../etc/passwd"), _safe("глаз 1?.png")
    ('passwd', 'глаз 1_.png')
    """
    base = re.sub(r'[<>:"|?*]', "_", name.replace("\\", "/").rpartition("/")[2])
    return "".join(c for c in base if c.isprintable()).lstrip(". ")[-120:] or "photograph"


def _file(job: Job, name: str) -> Response:
    if name not in job.files:
        raise Missing("there is no such file")
    headers = {"content-security-policy": "sandbox", "cache-control": "no-store",
        "content-disposition": f"attachment; filename*=utf-8''{quote(name)}"}  # fmt: skip
    return Response(job.files[name], media_type=guess_type(name)[0] or "application/octet-stream", headers=headers)


async def _refused(status: int, request: Request, error: Exception) -> JSONResponse:
    text = one_line(str(error))
    if isinstance(error, ValidationError):
        text = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    return JSONResponse({"detail": text}, status, {"retry-after": "5"} if status == 503 else None)


def _zipped(job: Job) -> Response:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # pictures are compressed already
        for name in job.facts["files"]:
            archive.writestr(name, job.files[name])
    return Response(packed.getvalue(), media_type="application/zip", headers={"cache-control": "no-store"})
