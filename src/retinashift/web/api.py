"""The page's HTTP interface: plain requests in, picture bytes or JSON out. `/docs` describes it offline."""

from __future__ import annotations

import asyncio
import base64
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser

from retinashift import __version__
from retinashift.inference.settings import Mode, OutputFormat
from retinashift.web.jobs import Busy, Job, JobQueue, Photo
from retinashift.web.settings import PageSettings
from retinashift.web.work import Worker

PAGE = Path(__file__).parent / "page"
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".tif": "image/tiff", ".tiff": "image/tiff",
         ".webp": "image/webp", ".json": "application/json", ".dcm": "application/dicom"}  # fmt: skip
NO_SCRIPT = {"content-security-policy": "sandbox", "cache-control": "no-store"}
LARGEST_SEED = 2**63 - 1


class UpscaleOptions(BaseModel):
    """What one upscaling may choose; the command's options of the same names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=255, description="File name of a photograph that is sent as the body.")] = ""
    checkpoint: Annotated[str, Field(description="A name of /api/checkpoints; empty: the default one.")] = ""
    mode: Mode = "faithful"
    steps: Annotated[int, Field(ge=0, le=1000, description="Network calls a sample; 0 follows from the mode.")] = 0
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED, description="Same seed, same image.")] = 0
    consistency: Annotated[bool, Field(description="Reduced again, the result reproduces its input.")] = True
    uncertainty: Annotated[int, Field(ge=0, le=64, description="Samples for the uncertainty map; 0: no map.")] = 0
    format: Annotated[OutputFormat, Field(description="File type of the result.")] = "same"


def build_api(settings: PageSettings, queue: JobQueue, worker: Worker) -> FastAPI:
    """The application: the page's files and the interface."""
    purpose = "Super-resolution of retinal photographs. For research use, not for diagnosis."
    api = FastAPI(title="RetinaShift", version=__version__, description=purpose, docs_url=None, redoc_url=None)
    MultiPartParser.spool_max_size = settings.max_upload  # uploads stay in memory, none goes to a temporary file

    @api.get("/api/about", summary="What the page needs to know: checkpoints and limits")
    def about() -> dict[str, Any]:
        return {
            "place": "Photographs go to this server only.",
            "formats": "PNG, JPEG, TIFF, WebP, PPM and DICOM.",
            "version": __version__,
            "limits": {"pixels": settings.max_pixels, "bytes": settings.max_upload, "count": settings.max_files},
            "checkpoints": worker.checkpoints(),
        }

    @api.get("/api/checkpoints", summary="Checkpoints by name, with their modes and options")
    def checkpoints() -> list[dict[str, Any]]:
        return worker.checkpoints()

    @api.post("/api/upscale", summary="Upscale one photograph and wait for the result", openapi_extra=_BODY,
              response_class=Response)  # fmt: skip
    async def upscale(request: Request, options: Annotated[UpscaleOptions, Query()]) -> Response:
        form = await _form(request, settings)
        options = _merged(options, form)
        files = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
        if len(files) > 1:
            raise HTTPException(422, "send one photograph, as the field file or as the body")
        name, data = (files[0].filename or "photograph", await files[0].read()) if files else (
            options.name or "photograph", await _raw(request))  # fmt: skip
        if not data:
            raise HTTPException(422, "no photograph was sent: a multipart field file, or the bytes as the body")
        job = _submit(queue, worker, [(name, data)], options)
        try:
            while not job.ended.is_set():
                if await request.is_disconnected():
                    raise HTTPException(499, "the client went away")
                await asyncio.sleep(0.02)
            photo = _finished(job)
        finally:
            queue.forget(job.id)
        if "application/zip" in request.headers.get("accept", ""):
            return Response(_zipped([photo]), media_type="application/zip")
        saved = photo.facts["saved"]
        return Response(
            photo.files[saved], media_type=_type(saved), headers={"content-disposition": _attachment(saved)}
        )

    @api.post(
        "/api/jobs", status_code=202, summary="Queue photographs; the answer is the job's id", openapi_extra=_BODY
    )
    async def submit(request: Request) -> dict[str, str]:
        form = await _form(request, settings)
        options = _merged(UpscaleOptions(), form)
        files = [(value.filename or "photograph", await value.read()) for value in form.getlist("file")
                 if isinstance(value, UploadFile)]  # fmt: skip
        truth = form.get("reference")
        reference = (truth.filename or "reference", await truth.read()) if isinstance(truth, UploadFile) else None
        if not files:
            raise HTTPException(422, "no photograph was sent, as the field file")
        if len(files) > settings.max_files:
            raise HTTPException(422, f"{len(files)} photographs are above the limit of {settings.max_files} in one job")
        if reference is not None and len(files) > 1:
            raise HTTPException(422, f"one reference was given for {len(files)} photographs; upscale its own alone")
        return {"id": _submit(queue, worker, files, options, reference).id}

    @api.get("/api/jobs/{id}", summary="State and progress of a job")
    def state(id: str) -> dict[str, Any]:
        job = _known(queue, id)
        first = queue.before(job)
        text = f"waiting for {first} job{'s' if first > 1 else ''} of others" if first else job.text
        photos = [{"number": number, "name": photo.name, **({"error": photo.error} if photo.error else photo.facts)}
                  for number, photo in enumerate(job.photos)]  # fmt: skip
        return {"id": id, "state": job.state, "progress": job.progress, "text": text, "photos": photos}

    @api.delete("/api/jobs/{id}", summary="Cancel a job, or forget its results", status_code=204)
    def forget(id: str) -> None:
        queue.forget(id)

    @api.get("/api/jobs/{id}/all.zip", summary="All files of a job")
    def zipped(id: str) -> Response:
        photos = [photo for photo in _known(queue, id).photos if not photo.error]
        return Response(_zipped(photos), media_type="application/zip", headers=NO_SCRIPT)

    @api.get("/api/jobs/{id}/{number}/{name}", summary="One file of a result")
    def file(id: str, number: int, name: str) -> Response:
        photos = _known(queue, id).photos
        data = photos[number].files.get(name) if 0 <= number < len(photos) else None
        if data is None:
            raise HTTPException(404, "there is no such file")
        return Response(data, media_type=_type(name), headers=NO_SCRIPT)

    @api.post("/api/chain", summary="The states of the chain of a photograph's middle, as PNG", openapi_extra=_BODY)
    async def chain(request: Request) -> dict[str, Any]:
        form = await _form(request, settings)
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise HTTPException(422, "no photograph was sent, as the field file")
        options = _merged(UpscaleOptions(), form)
        name, data = upload.filename or "photograph", await upload.read()
        job = queue.submit(lambda progress: [worker.chain(name, data, options.checkpoint, options.seed)], len(data))
        try:
            await asyncio.to_thread(job.ended.wait)
            photo = _finished(job)
        finally:
            queue.forget(job.id)
        frames = [{"name": name, "png": base64.b64encode(png).decode()} for name, png in photo.files.items()]
        return {"note": photo.facts["note"], "frames": frames}

    @api.get("/api/sample/{name}", include_in_schema=False)
    def sample(name: Literal["sample.png", "original.png"]) -> Response:
        return Response(worker.sample()[name], media_type="image/png")

    @api.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    static = {path.name: path for path in PAGE.iterdir() if path.is_file()}

    @api.get("/{name}", include_in_schema=False)
    def page(name: str) -> FileResponse:
        path = static.get(name)
        if path is None:
            raise HTTPException(404, "there is nothing here")
        return FileResponse(path, headers={"cache-control": "no-cache"})

    @api.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return page("index.html")

    @api.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503, headers={"retry-after": "5"})

    return api


_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _BINARY}}},
    "application/octet-stream": {"schema": _BINARY},
}}}  # fmt: skip


async def _form(request: Request, settings: PageSettings) -> FormData:
    """The multipart fields, or none where the body is the photograph itself."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return FormData()
    return await request.form(max_files=settings.max_files + 1, max_fields=32)


async def _raw(request: Request) -> bytes:
    multipart = request.headers.get("content-type", "").startswith("multipart/form-data")
    return b"" if multipart else await request.body()


def _merged(options: UpscaleOptions, form: FormData) -> UpscaleOptions:
    """The options of the query with those of the form; 422 names the field that is wrong."""
    given = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    try:
        return UpscaleOptions.model_validate({**options.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise HTTPException(422, "; ".join(lines)) from None


def _submit(
    queue: JobQueue, worker: Worker, files: list[tuple[str, bytes]], options: UpscaleOptions,
    reference: tuple[str, bytes] | None = None,
) -> Job:  # fmt: skip
    files = [(_safe(name), data) for name, data in files]
    held = sum(len(data) for _, data in files) + (len(reference[1]) if reference else 0)
    return queue.submit(lambda progress: worker.upscale(files, options, reference, progress), held)


def _known(queue: JobQueue, id: str) -> Job:
    job = queue.get(id)
    if job is None:
        raise HTTPException(404, "there is no such job (results end with the page)")
    return job


def _finished(job: Job) -> Photo:
    """The one photograph of an ended job, or the reason as status 422."""
    if job.state != "done":
        raise HTTPException(422 if job.state == "failed" else 503, job.text)
    (photo,) = job.photos
    if photo.error:
        raise HTTPException(422, photo.error)
    return photo


def _safe(name: str) -> str:
    """A file name without folders and control characters, in any script, at most 120 characters.

    >>> _safe("../../etc/passwd"), _safe("глаз 1.png")
    ('passwd', 'глаз 1.png')
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in base if c.isprintable()).lstrip(". ")[-120:] or "photograph"


def _zipped(photos: list[Photo]) -> bytes:
    """Results, records and maps; those of several photographs begin with their number."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # pictures are compressed already
        for number, photo in enumerate(photos):
            for file in photo.facts["files"]:
                name = file["name"] if len(photos) == 1 else f"{number + 1}_{file['name']}"
                archive.writestr(name, photo.files[file["name"]])
    return packed.getvalue()


def _type(name: str) -> str:
    return TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def _attachment(name: str) -> str:
    from urllib.parse import quote

    return f"attachment; filename*=utf-8''{quote(name)}"
