# shellcheck shell=bash
# Words for the person who watches. Sourced first by integration/demo and integration/test.

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

# A step that begins.
say() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }

# What a step found, under it.
tell() { printf '    %s\n' "$*"; }

# Ends the script: what is wrong and what to do about it.
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command where everybody can read it first.
show() { printf '    $ %s\n' "$*"; "$@"; }
