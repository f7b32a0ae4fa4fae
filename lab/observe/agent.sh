#!/bin/bash
# Sends a node's cgroup and process figures to the observer, one UDP datagram a second.
#
#   agent.sh <observer address> <port> <node> <token> <seconds to live> [interval in seconds]
#
# Started once on every node. Uses bash alone and starts no process per sample, so that it costs next to
# nothing. Reads cgroup v2 or v1, whichever the node has. Ends at its deadline, on SIGTERM (pid in
# /run/pglab-agent.pid), or when a newer agent took over the pid file: two never run on one node.
set -u
[ $# -ge 5 ] || { echo "usage: agent.sh address port node token seconds [interval]" >&2; exit 3; }
address=$1 port=$2 node=$3 token=$4 seconds=${5%.*} interval=${6:-1}
pidfile=/run/pglab-agent.pid
[ -w /run ] || pidfile=/tmp/pglab-agent.pid

if [ -r "$pidfile" ] && read -r old <"$pidfile" && [ -r "/proc/$old/cmdline" ]; then
  # Only an agent is ended, never a process that got its number by chance.
  mapfile -d '' -t words <"/proc/$old/cmdline"
  case "${words[*]}" in *agent.sh*) [ "$old" = $$ ] || kill "$old" 2>/dev/null ;; esac
fi
echo $$ >"$pidfile"
trap 'exit 0' TERM INT
trap 'read -r mine <"$pidfile" && [ "$mine" = $$ ] && : >"$pidfile"' EXIT

# Sleeping without a process: read from something that never has anything to say.
fifo="$pidfile.$$.fifo"
mkfifo -m 600 "$fifo" && exec 9<>"$fifo" && rm -f "$fifo" || exit 4

# Sets $found to the value of a key in a file of "key value" lines, or to nothing.
value_of() {
  local key value
  found=
  while read -r key value; do
    [ "$key" = "$2" ] && { found=$value; return; }
  done <"$1"
}

cgroup=${LAB_CGROUP:-/sys/fs/cgroup}  # another in a test
sample() {
  line=
  if [ -r $cgroup/cgroup.controllers ]; then
    [ -r $cgroup/cpu.stat ] && {
      value_of $cgroup/cpu.stat usage_usec && line+=" cpu_us=$found"
      value_of $cgroup/cpu.stat throttled_usec && line+=" throttled_us=${found:-0}"
    }
    [ -r $cgroup/memory.current ] && read -r found <$cgroup/memory.current && line+=" memory=$found"
    if [ -r $cgroup/io.stat ]; then
      local read_bytes=0 written=0 counted= word words
      while read -r -a words; do
        for word in "${words[@]}"; do
          case $word in
            rbytes=*) counted=1 read_bytes=$((read_bytes + ${word#*=})) ;;
            wbytes=*) counted=1 written=$((written + ${word#*=})) ;;
          esac
        done
      done <$cgroup/io.stat
      # A kernel that names no device counts nothing: unknown, and not 0.
      [ -z "$counted" ] || line+=" io_read=$read_bytes io_write=$written"
    fi
    [ -r $cgroup/pids.current ] && read -r found <$cgroup/pids.current && line+=" processes=$found"
  else
    [ -r $cgroup/cpuacct/cpuacct.usage ] && read -r found <$cgroup/cpuacct/cpuacct.usage && line+=" cpu_ns=$found"
    [ -r $cgroup/cpu/cpu.stat ] && value_of $cgroup/cpu/cpu.stat throttled_time && line+=" throttled_ns=${found:-0}"
    [ -r $cgroup/memory/memory.usage_in_bytes ] && read -r found <$cgroup/memory/memory.usage_in_bytes && line+=" memory=$found"
    local file=$cgroup/blkio/blkio.throttle.io_service_bytes device kind value read_bytes=0 written=0 counted=
    if [ -r $file ]; then
      while read -r device kind value; do
        case $kind in
          Read) counted=1 read_bytes=$((read_bytes + value)) ;;
          Write) counted=1 written=$((written + value)) ;;
        esac
      done <$file
      [ -z "$counted" ] || line+=" io_read=$read_bytes io_write=$written"
    fi
    [ -r $cgroup/pids/pids.current ] && read -r found <$cgroup/pids/pids.current && line+=" processes=$found"
  fi
  # Its own CPU until it last slept, which is the same work every time: a measure of the machine's pace. To the
  # nanosecond where the kernel tells, else in clock ticks.
  if [ -r /proc/$$/schedstat ] && read -r found _ </proc/$$/schedstat; then
    line+=" agent_ns=$found"
  else
    local stat words
    IFS= read -r stat </proc/$$/stat
    words=(${stat##*) })  # after the name: field 3 of proc(5) comes first
    line+=" agent_ticks=$((words[11] + words[12]))"
  fi
}

while [ "$SECONDS" -lt "$seconds" ]; do
  sample
  # A failed send (no route while the lab goes down) is no reason to end.
  { echo "$token $node$line" >"/dev/udp/$address/$port"; } 2>/dev/null
  read -r -t "$interval" -u 9 _
  read -r mine <"$pidfile" && [ "$mine" = $$ ] || break
done
