#!/usr/bin/env bash
# The main job, end to end, on real data: train PFGM++ (D = 128) and diffusion (EDM) on handwritten digits, draw
# samples of both, and score them. About three minutes on two cores. Results are in demo/.
set -euo pipefail
RUN=${RUN:-$(dirname "$(command -v driftfield)")}
OUT=${OUT:-demo}
STEPS=${STEPS:-900}

for process in "PFGMPP(D=128)" EDM; do
    name=$([ "$process" = EDM ] && echo edm || echo pfgmpp)
    echo "== $process"
    "$RUN/driftfield" train digits --process "$process" --steps "$STEPS" --run "$OUT/$name"
    "$RUN/driftfield" sample "$OUT/$name" -n 100 --cond 0,1,2,3,4,5,6,7,8,9 --out "$OUT/$name/drawn" --force
    "$RUN/driftfield" evaluate "$OUT/$name" -n 1000 --features digits --split train --json > "$OUT/$name/scores.json"
done
"$RUN/python" examples/side_by_side.py "$OUT"
