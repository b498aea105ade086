#!/usr/bin/env bash
# The whole method on a synthetic dataset, from raw folders to scores: minutes on two cores, no download.
#   OUTPUT     where everything goes (default output/demo); run again after a kill, it goes on where it was
#   VERBOSE=1  everything that the steps print; else it goes to OUTPUT/logs
CONFIG=demo
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# On a few cores, threads that wait for each other cost more than they bring to a model this small.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export CONFIG OUTPUT MODEL="$CONFIGS/demo/checkpoint" DATA="$OUTPUT/amt" RESUME=1
export LOG_LEVEL="${LOG_LEVEL:-WARNING}" # of ms-swift, which else prints every layer of the model
hold_output
source "$SCRIPTS/steps.sh"
source "$SCRIPTS/synthetic.sh"

# Status 1 says that something breaks results: the planted dialogue, which step 4 leaves out.
doctor() {
    python -m data_prep.doctor "${datasets[@]}" --report "$OUTPUT/doctor" || [ $? = 1 ]
}
# Two processes share the work where there are cores for them; the shorter stage 1 would lose more by their start.
causes() {
    if [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ] && ! has_accelerator; then
        export NPROC_PER_NODE="${NPROC_PER_NODE:-2}"
    fi
    bash "$SCRIPTS/second_stage.sh"
}
answer() {
    STAGE="$1" bash "$SCRIPTS/test.sh"
}

step "Generate a synthetic dataset: clips, dialogues, Action Units" "$raw" generate --leak
step "FER: peak frames and captions from the Action Units" "$raw/meld/fer.jsonl" faces
step "Doctor: what would ruin results" "$OUTPUT/doctor/doctor.json" doctor
python -m data_prep.demo.summary "$OUTPUT" --leaks
step "AMT: raw folders to instruction rows, without that leak" "$DATA/report.test.json" build
step "Stage 1 of M2SE: sentiment, emotion, faces" "$OUTPUT/stage1.test.jsonl" bash "$SCRIPTS/first_stage.sh"
step "Answers after stage 1" "$OUTPUT/stage1.test.jsonl" answer stage1
step "Stage 2 of M2SE: reasons and causes, too" "$OUTPUT/stage2.test.jsonl" causes
step "Answers after stage 2" "$OUTPUT/stage2.test.jsonl" answer stage2
rm -f "$OUTPUT/scores.txt.part"
python "$ROOT/compute_result.py" "$OUTPUT/stage1.test.jsonl" --built "$DATA/report.train.json" >>"$OUTPUT/scores.txt.part"
python "$ROOT/compute_result.py" "$OUTPUT/stage2.test.jsonl" --built "$DATA/report.train.json" \
    --before "$OUTPUT/stage1.test.jsonl" >>"$OUTPUT/scores.txt.part"
mv "$OUTPUT/scores.txt.part" "$OUTPUT/scores.txt"

printf '\nOn held-out clips, in per cent (all figures: %s, a page: %s)\n' \
    "$OUTPUT/scores.txt" "$OUTPUT/stage2.test.report/index.html"
python -m data_prep.demo.summary "$OUTPUT"
clip=output_repeated_splits_test/dia0_utt0
text="$(head -n 1 "$DATA/meld.mer.test.jsonl" |
    python -c 'import json, sys; print(json.loads(sys.stdin.read())["facts"]["transcript"])')"
printf '\nOne of these clips, asked with ask.py (a page with its picture: %s)\n' "$OUTPUT/ask/index.html"
python "$ROOT/ask.py" "$raw/meld/$clip.mp4" --text "$text" --checkpoint "$(last_checkpoint "$OUTPUT/stage2")" --html "$OUTPUT/ask" \
    --csv "$raw/meld/openface/$clip.csv" --task msa mer fer eri 2>"$OUTPUT/logs/ask.log" || {
    tail -n 5 "$OUTPUT/logs/ask.log" >&2
    fail "ask.py ended with an error; all it said is in $OUTPUT/logs/ask.log"
}
echo "done after $SECONDS s"
