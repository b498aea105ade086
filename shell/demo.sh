#!/usr/bin/env bash
# The whole method on a drawn world, from raw folders to scores: about … minutes on two cores, no download.
#   OUTPUT  where everything goes (default output/demo); a finished demo is not overwritten
CONFIG=demo
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# On a few cores, threads that wait for each other cost more than they bring to a model this small.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export CONFIG OUTPUT MODEL="$ROOT/configs/demo/checkpoint" DATA="$OUTPUT/amt"
[ ! -e "$OUTPUT/stage1" ] || fail "$OUTPUT holds a demo already; remove it or set another OUTPUT"
raw="$OUTPUT/raw"
say() { printf '\n=== %s (%d s) ===\n' "$*" "$SECONDS"; }

say "1. Draw the world: clips, transcripts, dialogues with causes, Action Units"
python -m data_prep.demo_data --out "$raw"

say "2. FER: peak frames and captions from the Action Units"
for dataset in mosei meld; do
    python -m data_prep.fer --dataset "$dataset" --root "$raw/$dataset" --csv "$raw/$dataset/openface" \
        --out "$raw/$dataset" --split train dev test
done

say "3. AMT: raw folders to instruction rows"
for split in train dev test; do
    python -m data_prep.build_amt --meld "$raw/meld" --mosei "$raw/mosei" --ecf "$raw/ecf" --split "$split" --out "$DATA"
done

say "4. Stage 1: Multitask Pretraining (MSA, FER, MER)"
bash "$ROOT/shell/first_stage.sh"
say "5. Answers and scores after stage 1"
STAGE=stage1 bash "$ROOT/shell/test.sh"

say "6. Stage 2: Multitask Reason Fine-tuning (MER, ERI, ECPE, MSA again)"
bash "$ROOT/shell/second_stage.sh"
say "7. Answers and scores after stage 2"
STAGE=stage2 bash "$ROOT/shell/test.sh"
say "done: checkpoints, answers and scores are in $OUTPUT"
