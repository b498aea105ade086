"""Clips and pictures that the app's pages show: each gets a number when a page names it, and nothing else is served."""

from __future__ import annotations

import io
import mimetypes
import secrets
import threading
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response
from PIL import Image

from data_prep.readers.media import SUFFIXES
from swift_plugins.files import InputError
from swift_plugins.frames import PICTURES, sample_frames

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=600"}


class Media:
    """The numbers of files, and the routes /media/RUN/N (the file) and /media/RUN/N/frames (a JPEG of a clip's 8
    frames). RUN is another word at every start: what a browser keeps of an earlier one has other numbers."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self._files: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._lock = threading.Lock()
        self.router = APIRouter()
        self.router.add_api_route(f"/media/{self.run}/{{number}}", self.file, methods=["GET", "HEAD"])
        self.router.add_api_route(f"/media/{self.run}/{{number}}/frames", self.frames, methods=["GET"])

    def shown(self, path: Path) -> dict:
        """What a page needs of a file: name, url, is_picture, and `missing` for what cannot be shown."""
        suffix = path.suffix.lower()
        if suffix not in (*SUFFIXES, *PICTURES) or not path.is_file():
            return {"name": path.name, "missing": True, "url": ""}
        path = path.resolve()
        with self._lock:
            if path not in self._numbers:
                self._numbers[path] = len(self._files)
                self._files.append(path)
            number = self._numbers[path]
        url = f"/media/{self.run}/{number}"
        return {"name": path.name, "missing": False, "url": url, "is_picture": suffix in PICTURES}

    def peak(self, peak: dict | None) -> dict | None:
        """A clip's `peak` with the url of its picture."""
        return peak and peak | {"url": self.shown(peak["image"])["url"] if peak["image"] else ""}

    def _path(self, number: int) -> Path:
        if not 0 <= number < len(self._files) or not self._files[number].is_file():
            raise HTTPException(404)
        return self._files[number]

    def file(self, number: int) -> Response:
        """The file itself, whole or in ranges."""
        path = self._path(number)
        return FileResponse(path, media_type=mimetypes.guess_type(path.name)[0], headers=HEADERS)

    def frames(self, number: int) -> Response:
        """The frames that a model is shown of a clip, side by side, 96 pixels high; empty where it shows none."""
        try:
            pictures = sample_frames(self._path(number), 8)
        except InputError:
            pictures = [Image.new("RGB", (1, 1))]
        width = max(1, round(pictures[0].width * 96 / pictures[0].height))
        sheet = Image.new("RGB", (width * len(pictures), 96))
        for place, picture in enumerate(pictures):
            sheet.paste(picture.resize((width, 96)), (place * width, 0))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=85)
        return Response(file.getvalue(), media_type="image/jpeg", headers=HEADERS)
