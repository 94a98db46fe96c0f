# shellcheck shell=bash
# One archvhost daemon for a script: started, waited for, and ended by its id. Needs: say.sh, and archvhost on the PATH.

DAEMON_PID=''

# start_daemon STORE CONTROL_SOCKET OPTION...: returns when the control socket answers.
start_daemon() {
  tell "$ archvhost --store $1 --control $2 serve ${*:3} &"
  archvhost --store "$1" --control "$2" serve "${@:3}" &
  DAEMON_PID=$!
  local attempt
  for attempt in {1..100}; do
    archvhost --control "$2" status >/dev/null 2>&1 && return
    kill -0 "$DAEMON_PID" 2>/dev/null || fail "the daemon ended while it started"
    sleep 0.1
  done
  fail "the daemon does not answer after $attempt attempts"
}

stop_daemon() {
  [ -n "$DAEMON_PID" ] || return 0
  kill "$DAEMON_PID" 2>/dev/null || :
  wait "$DAEMON_PID" 2>/dev/null || :
  DAEMON_PID=''
}
