"""The peak frame of one clip, from its OpenFace CSV.

    python -m data_prep.peak_frame CSV [--aus all|no_blink|EMOTION] [--confidence 0.8] [--hold 3]
    python -m data_prep.peak_frame CSV --video CLIP --image peak.png [--crop] --plot plot.png

Prints one JSON line: {"peak_frame": number of the frame as in the CSV, "face_id": …, "score": …}, or
{"peak_frame": null, "reason": …}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from data_prep.fer.au_table import OpenFaceError, read_faces
from data_prep.fer.facs import FACS, load_facs
from data_prep.fer.peaks import find_peak, peak_image, summed_aus, write_image
from swift_plugins.files import InputError, run_cli


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data_prep.peak_frame", description=__doc__.split("\n")[0])
    parser.add_argument("csv", type=Path, metavar="CSV")
    parser.add_argument("--aus", default="no_blink", metavar="all|no_blink|EMOTION", help="AUs summed (no_blink)")
    parser.add_argument("--with-blink", dest="aus", action="store_const", const="all", help="same as --aus all")
    parser.add_argument("--confidence", type=float, help="lowest tracking confidence of a row (0.8)")
    parser.add_argument("--hold", type=int, default=1, metavar="N", help="the peak must hold for N frames (1)")
    parser.add_argument("--facs", type=Path, default=FACS, help="FACS table (configs/facs.yaml)")
    parser.add_argument("--video", type=Path, help="the clip, for --image and for the picture in --plot")
    parser.add_argument("--image", type=Path, help="write the peak frame here (.png, .jpg), 448x448")
    parser.add_argument("--crop", action="store_true", help="the person instead of the whole frame (needs landmarks)")
    parser.add_argument("--plot", type=Path, help="write a plot of the AUs over time here")
    args = parser.parse_args(argv)
    if args.hold < 1:
        parser.error("--hold is 1 or more")
    if args.image and not args.video:
        parser.error("--image needs --video")
    if args.image and args.image.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error("--image ends in .png or .jpg")
    facs = load_facs(args.facs)
    confidence = facs.presence.confidence if args.confidence is None else args.confidence
    aus = summed_aus(args.aus, facs)
    try:
        faces = read_faces(args.csv, confidence, boxes=args.crop)
        peak = find_peak(faces, aus, args.hold)
    except OpenFaceError as error:
        print(json.dumps({"peak_frame": None, "reason": error.reason}, ensure_ascii=False))
        if error.kind == "no_face":
            return
        raise InputError(error.reason, args.csv, error.row) from None
    print(json.dumps({"peak_frame": peak.frame, "face_id": peak.face_id, "score": peak.score}))
    box = None
    if args.crop:
        if faces.box is None:
            raise InputError("has no landmarks (x_0 … y_67) to crop by; run OpenFace with -2Dfp", args.csv)
        box = faces.box[peak.row]
    image = peak_image(args.video, peak.index, box) if args.video and (args.image or args.plot) else None
    if args.image:
        write_image(args.image, image)
    if args.plot:
        from data_prep.fer.pictures import plot_clip  # matplotlib starts slowly: only when asked for

        label = args.aus if args.aus not in ("all", "no_blink") else None
        plot_clip(args.plot, faces, peak, aus, facs, title=args.csv.stem, image=image, label=label)


if __name__ == "__main__":
    run_cli(main)
