#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/shell/second_stage.sh" "$@"
