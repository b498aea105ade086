#!/usr/bin/env bash
# Emotion-LLaMA's two stages on synthetic clips with sound, and both again without the sound: does the model hear?
#   OUTPUT     where everything goes (default output/emotion-llama-demo); run again after a kill, it goes on where it was
#   VERBOSE=1  everything that the steps print; else it goes to OUTPUT/logs
CONFIG=emotion-llama-demo
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# On a few cores, threads that wait for each other cost more than they bring to a model this small.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export CONFIG MODEL="$OUTPUT/base" DATA="$OUTPUT/amt" RESUME=1
export LOG_LEVEL="${LOG_LEVEL:-WARNING}" # of ms-swift, which else prints every layer of the model
unset AMT_FEATURES AMT_ENCODERS
raw="$OUTPUT/raw/mosei" features="$OUTPUT/features"
hold_output
source "$SCRIPTS/steps.sh"

generate() {
    rm -rf "$OUTPUT/raw.part" "$OUTPUT"/.raw.part.* # of a kill
    python -m data_prep.demo --out "$OUTPUT/raw.part" --size sentences --sound
    mv "$OUTPUT/raw.part" "$OUTPUT/raw"
}
faces() {
    python -m data_prep.fer --dataset mosei --root "$raw" --resume --csv "$raw/openface" --out "$raw" --split train test
}
# The labels of MER2023's test list; disgust is none of them.
records() {
    local labels=(joy=happy sadness=sad anger=angry fear=worried disgust=)
    python -m data_prep.merr --export --dataset mosei --root "$raw" --labels "${labels[@]}" --clips --out "$OUTPUT/merr"
    python -m data_prep.merr --export --dataset mosei --root "$raw" --split test --labels "${labels[@]}" --clips \
        --out "$OUTPUT/mer2023"
}
build() {
    local common=(--out "$DATA" --media-root "$OUTPUT" --prompts "$CONFIGS/emotion-llama/prompts.yaml" --audio)
    python -m data_prep.build_amt --split train --merr "$OUTPUT/merr" --merr-coarse "$OUTPUT/merr" "${common[@]}"
    python -m data_prep.build_amt --split test --mer2023 "$OUTPUT/mer2023" "${common[@]}"
}
base() {
    rm -rf "$OUTPUT/files" "$MODEL"
    python -m data_prep.demo.emotion_llama --rows "$DATA" --out "$OUTPUT/files"
    python -m swift_plugins.emotion_llama.convert base --eva "$OUTPUT/files/eva.pth" --llama "$OUTPUT/files/llama" \
        --heads 4 --image-size 56 --set stream_width=64 --out "$MODEL"
}
hear() {
    python -m data_prep.features --encoder hubert --model "$OUTPUT/files/hubert" --rows "$DATA" --out "$features"
    touch "$features/complete"
}
# stage sound|silence COMMAND…: into a folder of its own; in silence the model gets zeros, in training and in answering.
stage() {
    local with="$1" heard=
    shift
    [ "$with" != sound ] || heard="$features"
    AMT_FEATURES="$heard" OUTPUT="$OUTPUT/$with" OUTPUT_HELD='' "$@"
}
answer() {
    STAGE="$1" bash "$SCRIPTS/test.sh"
}

step "Generate a synthetic dataset: clips with voices" "$raw" generate
step "FER: peak frames and Action Units" "$raw/fer.jsonl" faces
step "MERR: records, label lists, links to clips" "$OUTPUT/mer2023/relative_test_NCEV.txt" records
step "AMT: records to instruction rows" "$DATA/report.test.json" build
step "A base that knows nothing, from files as published" "$MODEL/config.json" base
step "HuBERT: a feature for every clip" "$features/complete" hear
for with in sound silence; do
    step "With $with: stage 1, labels and captions" "$OUTPUT/$with/stage1.test.jsonl" \
        stage "$with" bash "$SCRIPTS/first_stage.sh"
    step "With $with: answers after stage 1" "$OUTPUT/$with/stage1.test.jsonl" stage "$with" answer stage1
    step "With $with: stage 2, reasons" "$OUTPUT/$with/stage2.test.jsonl" stage "$with" bash "$SCRIPTS/second_stage.sh"
    step "With $with: answers after stage 2" "$OUTPUT/$with/stage2.test.jsonl" stage "$with" answer stage2
done

printf '\nEmotion of held-out clips, accuracy in per cent (all figures: %s/*/stage*.test.scores.json)\n' "$OUTPUT"
python -m data_prep.demo.summary "$OUTPUT" --hearing
echo "done after $SECONDS s"
