"""Put the demo's two sets of samples beside real digits, print their scores, and hold them to the bound.

The bound is that of docs/benchmarks.md: it was measured over three seeds, not chosen.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from driftfield.data.digits import Digits
from driftfield.data.picture import picture

BOUND = 0.7
NAMES = {"pfgmpp": "PFGM++ (D = 128)", "edm": "EDM"}


def main(folder: Path) -> int:
    """Write `side_by_side.png`; the exit status says whether both Fréchet distances are under the bound."""
    source = Digits().load()
    real = picture(source.held()[0][:100], source.info)
    assert real is not None
    panels = {"digits never seen in training": real}
    panels |= {title: Image.open(folder / name / "drawn" / "grid.png") for name, title in NAMES.items()}
    width, height = real.size
    sheet = Image.new("L", (3 * width + 40, height + 30), 255)
    for i, (title, panel) in enumerate(panels.items()):
        left = i * (width + 20)
        ImageDraw.Draw(sheet).text((left + 4, 4), title, fill=0, font_size=18)
        sheet.paste(panel.resize((width, height)), (left, 30))
    sheet.save(folder / "side_by_side.png")

    print(f"\n{'':18} {'Fréchet':>8} {'KID x 1000':>16} {'nearest':>8}")
    passed = True
    for name, title in NAMES.items():
        s = json.loads((folder / name / "scores.json").read_text())
        kid = f"{1000 * s['kid']:.2f} +- {1000 * s['kid_error']:.2f}"
        print(f"{title:18} {s['frechet']:8.3f} {kid:>16} {s['nearest']:8.3f}")
        passed &= s["frechet"] < BOUND
    verdict = "both are" if passed else "NOT both are"
    print(f"\n{verdict} under the Fréchet bound of {BOUND} (digits features, 1,000 samples, training split)")
    print(f"look at {folder / 'side_by_side.png'}")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
