#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/shell/first_stage.sh" "$@"
