# Sourced by demo.sh and ablation.sh: a synthetic dataset under OUTPUT/raw, and its rows in DATA.
raw="$OUTPUT/raw"
datasets=(--meld "$raw/meld" --mosei "$raw/mosei" --ecf "$raw/ecf")

# generate FLAGS of data_prep.demo…
generate() {
    rm -rf "$raw.part" "$OUTPUT"/.raw.part.* # of a kill
    python -m data_prep.demo --out "$raw.part" "$@"
    mv "$raw.part" "$raw"
}
faces() {
    for dataset in mosei meld; do
        python -m data_prep.fer --dataset "$dataset" --root "$raw/$dataset" --resume \
            --csv "$raw/$dataset/openface" --out "$raw/$dataset" --split train dev test
    done
}
build() {
    for split in train dev test; do
        python -m data_prep.build_amt --split "$split" --out "$DATA" "${datasets[@]}" \
            $([ "$split" != train ] || echo --exclude-leaks all)
    done
}
