#!/usr/bin/env bash
# The whole method on a synthetic dataset, from raw folders to scores: minutes on two cores, no download.
#   OUTPUT  where everything goes (default output/demo); run again after a kill, it goes on where it was
CONFIG=demo
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# On a few cores, threads that wait for each other cost more than they bring to a model this small.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export CONFIG OUTPUT MODEL="$CONFIGS/demo/checkpoint" DATA="$OUTPUT/amt" RESUME=1
export LOG_LEVEL="${LOG_LEVEL:-WARNING}" # of ms-swift, which else prints every layer of the model
raw="$OUTPUT/raw"
hold_output
say() { printf '\n=== %s (%d s) ===\n' "$*" "$SECONDS"; }

say "1. Generate a synthetic dataset: clips, transcripts, dialogues with causes, Action Units"
if [ ! -d "$raw" ]; then
    rm -rf "$raw.part" "$OUTPUT"/.raw.part.* # of a kill
    python -m data_prep.demo --out "$raw.part"
    mv "$raw.part" "$raw"
fi

say "2. FER: peak frames and captions from the Action Units"
for dataset in mosei meld; do
    [ -f "$raw/$dataset/fer.jsonl" ] || python -m data_prep.fer --dataset "$dataset" --root "$raw/$dataset" --resume \
        --csv "$raw/$dataset/openface" --out "$raw/$dataset" --split train dev test
done

say "3. AMT: raw folders to instruction rows"
for split in train dev test; do
    [ -f "$DATA/report.$split.json" ] || python -m data_prep.build_amt --split "$split" --out "$DATA" \
        --meld "$raw/meld" --mosei "$raw/mosei" --ecf "$raw/ecf"
done

for stage in first second; do
    number=$([ "$stage" = first ] && echo 1 || echo 2)
    step=$((2 * number + 2))
    result="$OUTPUT/stage$number.test.jsonl"
    if [ ! -f "$result" ]; then
        say "$step. Stage $number of M2SE"
        bash "$SCRIPTS/${stage}_stage.sh"
        say "$((step + 1)). Answers after stage $number"
        STAGE="stage$number" bash "$SCRIPTS/test.sh" >"$OUTPUT/stage$number.test.log"
    fi
done

say "8. Scores after stage 1"
python "$ROOT/compute_result.py" "$OUTPUT/stage1.test.jsonl" --built "$DATA/report.train.json"
say "9. Scores after stage 2, and what changed since stage 1"
python "$ROOT/compute_result.py" "$OUTPUT/stage2.test.jsonl" --built "$DATA/report.train.json" \
    --before "$OUTPUT/stage1.test.jsonl"
say "done: checkpoints, answers and pages ($OUTPUT/stage2.test.report/index.html) are in $OUTPUT"
