# Sourced by the demos after env.sh: steps that are run once each, what they say kept in OUTPUT/logs.
number=0 child=
mkdir -p "$OUTPUT/logs"
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true' EXIT

# step TITLE DONE COMMAND…: run it unless the file DONE is there. Its time is printed, and on a terminal its progress.
step() {
    local title="$1" ready="$2" start=$SECONDS status=0 log line
    shift 2
    number=$((number + 1))
    log="$OUTPUT/logs/$number.log"
    line="$(printf '%d. %-58s' "$number" "$title")"
    [ ! -e "$ready" ] || { echo "$line done before"; return; }
    if [ "${VERBOSE:-0}" = 1 ]; then
        printf '\n=== %s ===\n' "$line"
        "$@"
        return
    fi
    [ -t 1 ] || printf '%s' "$line"
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        [ ! -t 1 ] || printf '\r%s %4d s %s\033[K' "$line" $((SECONDS - start)) "$(progress "$log")"
        sleep 0.3
    done
    wait "$child" || status=$?
    child=
    if [ -t 1 ]; then printf '\r%s %4d s\033[K\n' "$line" $((SECONDS - start)); else printf ' %4d s\n' $((SECONDS - start)); fi
    [ "$status" = 0 ] || { tail -n 5 "$log" >&2; fail "step $number ended with status $status; all it said is in $log"; }
}

# The last progress bar in a log: 248/477.
progress() {
    tail -c 500 "$1" | tr '\r' '\n' | grep -oE '[0-9]+/[0-9]+ \[' | tail -n 1 | tr -d ' [' || true
}
