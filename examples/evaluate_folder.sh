#!/usr/bin/env bash
# Scores folders of images from the command line: two generators against the same real images, and side by side.
#
#     bash examples/evaluate_folder.sh [REAL HELD_OUT GENERATED OTHER]
#
# Without folders it makes some of its own: patches of the Moon, held-out ones blurred a little, and blurred a lot. With
# the published networks at hand (`synthqual weights fetch inception`), METRICS=fid,kid,precision,recall.
set -euo pipefail

output=${OUTPUT:-runs/folders}
metrics=${METRICS:-fd_wavelet,kd_wavelet,precision_wavelet,recall_wavelet,memorization_pixels}
mkdir -p "$output"

if [ $# -eq 4 ]; then
    real=$1 held_out=$2 generated=$3 other=$4
elif [ $# -eq 0 ]; then
    real=$output/real held_out=$output/held_out generated=$output/little other=$output/much
    python - "$real" "$held_out" "$generated" "$other" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image, ImageFilter
from skimage import data

moon = Image.fromarray(data.moon())
tiles = [(x, y, x + 64, y + 64) for x in range(0, 449, 12) for y in range(0, 449, 12)]
left = [tile for tile in tiles if tile[2] <= 340]
right = [tile for tile in tiles if tile[0] >= 340]
for folder, chosen, blur in zip(sys.argv[1:], (left, right[::2], right[1::2], right[1::2]), (0, 0, 0.5, 2)):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, tile in enumerate(chosen):
        moon.crop(tile).filter(ImageFilter.GaussianBlur(blur)).save(Path(folder) / f"{number:04}.png")
PYTHON
else
    sed -n 's/^# \{0,1\}//; 2,7p' "$0" >&2
    exit 2
fi

for fake in "$generated" "$other"; do
    report=$output/report-$(basename "$fake")
    synthqual evaluate --real "$real" --held-out "$held_out" --fake "$fake" --metrics "$metrics" --output "$report"
    echo "open $report/report.html"
done
synthqual compare "$output/report-$(basename "$generated")/report.json" "$output/report-$(basename "$other")/report.json"
