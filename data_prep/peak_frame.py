"""The peak frame of one clip, from its OpenFace CSV.

    python -m data_prep.peak_frame CSV [--aus all|no_blink|EMOTION|AU01,AU06] [--confidence 0.8] [--hold 3]
    python -m data_prep.peak_frame CSV --video CLIP --image peak.png [--crop] --plot plot.png

Prints one JSON line: {"peak_frame": number of the frame as in the CSV, "face_id": …, "score": …}, or
{"peak_frame": null, "reason": …}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from data_prep.fer.au_table import OpenFaceError, read_faces
from data_prep.fer.facs import FACS, load_facs
from data_prep.fer.peaks import check_length, find_peak, peak_image, read_choice, summed_aus, write_image
from swift_plugins.files import InputError, run_cli
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class PeakOptions:
    """The command line of `python -m data_prep.peak_frame`."""

    csv: Path = option(positional=True, metavar="CSV", help="as OpenFace or a tool with its columns wrote it")
    aus: str = option("no_blink", metavar="all|no_blink|EMOTION|AU,AU", help="AUs summed per frame (no_blink)")
    confidence: float | None = option(None, help="lowest tracking confidence of a row (0.8)")
    hold: int = option(1, metavar="N", help="the peak must hold for N frames (1)")
    facs: Path = option(FACS, help="FACS table (configs/facs.yaml)")
    video: Path | None = option(None, help="the clip, for --image and for the picture in --plot")
    image: Path | None = option(None, help="write the peak frame here (.png, .jpg), 448x448")
    crop: bool = option(False, help="the person instead of the whole frame (needs landmarks)")
    people: str = option(
        "one", choices=("one", "several"), help="whether FeatureExtraction or FaceLandmarkVidMulti wrote the CSV (one)"
    )
    plot: Path | None = option(None, help="write a plot of the AUs over time here")


def main(argv: list[str] | None = None) -> None:
    """Read the CSV, print the peak, write the pictures."""
    options = parse(PeakOptions, __doc__, "python -m data_prep.peak_frame", argv)
    if options.hold < 1:
        raise InputError("--hold is 1 or more")
    if options.image and not options.video:
        raise InputError("--image needs --video")
    if options.image and options.image.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError("--image ends in .png or .jpg")
    facs = load_facs(options.facs)
    confidence = facs.presence.confidence if options.confidence is None else options.confidence
    choice = read_choice([options.aus])
    aus = summed_aus(choice, facs)
    try:
        faces = read_faces(options.csv, confidence, boxes=options.crop)
        peak = find_peak(faces, aus, options.hold)
    except OpenFaceError as error:
        print(json.dumps({"peak_frame": None, "reason": error.reason}, ensure_ascii=False))
        if error.kind == "no_face":
            return
        raise InputError(error.reason, options.csv, error.row) from None
    box = None
    if options.crop:
        if faces.box is None:
            raise InputError("has no landmarks (x_0 … y_67) to crop by; run OpenFace with -2Dfp", options.csv)
        box = faces.box[peak.row]
    image = None
    if options.video and (options.image or options.plot):
        check_length(faces, options.video, several=options.people == "several")
        image = peak_image(options.video, peak.index, box, crop=options.crop)
    print(json.dumps({"peak_frame": peak.frame, "face_id": peak.face_id, "score": peak.score}))
    if options.image:
        write_image(options.image, image)
    if options.plot:
        from data_prep.fer.pictures import plot_clip  # matplotlib starts slowly: only when asked for

        label = choice if isinstance(choice, str) and choice not in ("all", "no_blink") else None
        plot_clip(options.plot, faces, peak, aus, facs, title=options.csv.stem, image=image, label=label)


if __name__ == "__main__":
    run_cli(main)
