
# From here on the file is the same for every run. Names begin with mtf_ so that the lines of slurm.setup, which run in
# this shell, do not collide with them.
#
# A cluster runs thousands of these: what bash can do itself is left to no program, and what is worth nothing in most runs
# (noting progress where there is none) is not done. Values come back in variables, for $(...) is another process.

mtf_die() {
  printf 'mtf: %s: %s\n' "$mtf_name" "$1" >&2
  exit 1
}

# The time goes into mtf_now. Bash before 4.2 cannot tell it.
mtf_look_at_clock() {
  TZ=UTC0 printf -v mtf_now '%(%Y-%m-%dT%H:%M:%SZ)T' -1 2>/dev/null || mtf_now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
}

# From here on let nothing interrupt. Slurm signals every process of a job, so what is called must be deaf as well.
mtf_be_deaf() {
  trap '' $mtf_signals INT HUP
}

# What is in the file $1 goes into mtf_text; nothing if it is not there.
mtf_read() {
  mtf_text=
  [[ -e $1 ]] && IFS= read -r -d '' mtf_text <"$1"
}

# Put the text $2 into the file $1, which is there whole or not at all. With $3 it outlives a crash of the machine, and
# so does the file $3.
mtf_publish() {
  local temporary="${1%/*}/.${1##*/}.$$.tmp"
  if printf '%s\n' "$2" >"$temporary"; then
    [[ -n ${3-} ]] && sync "$temporary" "$3" 2>/dev/null # not every system can sync one file
    (mtf_be_deaf && exec mv -f -- "$temporary" "$1") && return 0
  fi
  rm -f -- "$temporary"
  return 1
}

# The text $1 as a string of JSON goes into mtf_text.
mtf_quote() {
  mtf_text=${1//\\/\\\\}
  mtf_text=${mtf_text//\"/\\\"}
  mtf_text="\"${mtf_text//[[:cntrl:]]/ }\""
}

# Say how the attempt ended: outcome $1, exit status $2, reason $3, and the budget $4 if one is used up.
mtf_say_end() {
  mtf_text=null
  [[ -n $3 ]] && mtf_quote "$3"
  mtf_look_at_clock
  mtf_publish "$mtf_attempt_dir/finished.json" "{
  \"version\": 1,
  \"attempt\": $mtf_attempt,
  \"outcome\": \"$1\",
  \"exit_status\": ${2:-null},
  \"reason\": $mtf_text,
  \"limit\": ${4:-null},
  \"finished_at\": \"$mtf_now\"
}" "$mtf_attempt_dir/started.json" ||
    mtf_die "attempt $mtf_attempt ended ($1), but its receipt cannot be written to $mtf_attempt_dir"
}

# The same, unless the trainer has said it itself.
mtf_finish() {
  [[ -e $mtf_attempt_dir/finished.json ]] || mtf_say_end "$@"
}

# The outcome in the receipt of the attempt in folder $1 goes into mtf_outcome; that of one that was killed is `killed`, or
# `starved` for want of memory, of which the next attempt would have no more.
mtf_read_outcome() {
  mtf_outcome=
  mtf_read "$1/finished.json"
  [[ $mtf_text =~ \"outcome\":[[:space:]]*\"([a-z-]+)\" ]] && mtf_outcome=${BASH_REMATCH[1]}
  [[ $mtf_outcome == failed ]] || return
  [[ $mtf_text =~ \"exit_status\":[[:space:]]*137 ]] && mtf_outcome=killed
  [[ -e $1/out-of-memory ]] && mtf_outcome=starved
}

# End with the status that stands for the outcome in the receipt.
mtf_leave() {
  trap - EXIT
  mtf_be_deaf
  mtf_read_outcome "$mtf_attempt_dir"
  if [[ $mtf_outcome == preempted || ($mtf_outcome == failed && $mtf_max_failures != 0) ]]; then
    mtf_queue_again "$mtf_outcome"
    mtf_read_outcome "$mtf_attempt_dir"
  fi
  case $mtf_outcome in
    finished) exit 0 ;;
    preempted | wants-requeue) exit 75 ;;
    do-not-requeue) exit 76 ;;
    *) exit 1 ;;
  esac
}

mtf_end() {
  mtf_be_deaf
  set +eu # slurm.setup may have ended the script
  mtf_finish "$@"
  mtf_leave
}

# The name of the signal that the exit status $1 stands for goes into mtf_signal.
mtf_signal_of() {
  (($1 > 128)) && mtf_signal=$(kill -l "$1" 2>/dev/null)
}

# Whether a preemption is announced by signal $1.
mtf_announces() {
  [[ " $mtf_signals INT HUP " == *" $1 "* ]]
}

# Take back what lines of slurm.setup may have set.
mtf_be_plain() {
  set +efux
  shopt -u dotglob failglob nocasematch nullglob
  IFS=$' \t\n'
}

# Line $2 of slurm.setup ended with status $1: the command is not run. $3 says what that was. Nothing happens if it is a
# line of a file that was read in, where ${#BASH_SOURCE[@]} is $4.
mtf_refuse_setup() {
  ((${4:-0} > mtf_depth)) && return
  trap - DEBUG ERR EXIT
  mtf_be_plain
  # who signals a job signals what the line has started as well
  [[ -z $mtf_signalled ]] && mtf_signal_of "$1" && mtf_announces "$mtf_signal" && mtf_signalled=$mtf_signal
  [[ -n $mtf_signalled ]] && mtf_end preempted null "told to stop (SIG$mtf_signalled) before the command ran"
  [[ ${5-} == 'eval "$mtf_setup"'* ]] && mtf_end failed null "slurm.setup: bash cannot read it; see the log"
  mtf_end failed null "slurm.setup: '$2' $3 status $1; see the log"
}

# Note signal $1, and pass it on to the command; one that comes before the command runs keeps it from starting. No $(...)
# here: bash cannot take another signal while it reads one in a trap.
mtf_forward() {
  mtf_signalled=$1
  mtf_pending=$1
  mtf_interrupted=1
  [[ -n $mtf_child ]] && mtf_pass_on
}

mtf_pass_on() {
  local name=$mtf_pending
  mtf_pending=
  [[ -n $name ]] || return 0
  [[ $name == TERM ]] && name=$mtf_as_term
  mtf_let_start
  kill -s "$name" "$mtf_child" 2>/dev/null
}

# Wait until the new process runs the command. Before, it is a copy of this script, traps included, and a signal is lost.
mtf_let_start() {
  local mine patience=500
  mtf_read_words $$
  mine=$mtf_text
  while mtf_read_words "$mtf_child" && [[ $mtf_text == "$mine" ]] && ((patience-- > 0)); do sleep 0.01; done
}

# The words of process $1 go into mtf_text; nothing if it is gone.
mtf_read_words() {
  local word
  mtf_text=
  if [[ -e /proc/$$/cmdline ]]; then
    while IFS= read -r -d '' word; do mtf_text+=" $word"; done
  fi 2>/dev/null <"/proc/$1/cmdline"
  [[ -e /proc/$$/cmdline ]] || mtf_text=$(ps -o command= -p "$1" 2>/dev/null)
  :
}

# Wait for the command; its status goes into mtf_status.
mtf_await() {
  trap 'mtf_interrupted=1' URG
  while :; do
    mtf_interrupted=
    wait "$mtf_child" 2>/dev/null
    mtf_status=$?
    [[ -n $mtf_interrupted ]] || break # else the status is that of the trap, and the command may still run
  done
  trap '' URG
}

# A signal that comes just before bash falls asleep in `wait` would be noticed only at the end: wake it once, unless the
# script ends before.
mtf_wake() {
  mtf_be_deaf
  read -r -t 2
  (($? > 128)) && kill -s URG $$
}

# Whether the submission that the job belongs to has been withdrawn.
mtf_is_cancelled() {
  [[ -e $mtf_sweep_dir/submissions/$mtf_token/cancelled/${mtf_run_dir##*/} ]]
}

# Whether some attempt has finished.
mtf_has_finished() {
  local folder
  for folder in "$mtf_run_dir"/attempts/*/; do
    mtf_read_outcome "${folder%/}"
    [[ $mtf_outcome == finished ]] && return 0
  done
  return 1
}

# Whether some attempt of this submission ended so that the run is not to go on under it.
mtf_has_failed() {
  local folder
  for folder in "$mtf_run_dir"/attempts/*/; do
    folder=${folder%/}
    [[ ${folder##*/} =~ ^[0-9]+$ ]] && ((10#${folder##*/} >= mtf_first_attempt)) || continue
    mtf_read_outcome "$folder"
    case $mtf_outcome in failed | killed | starved | do-not-requeue) return 0 ;; esac
  done
  return 1
}

# What Slurm answered ($1) may be another answer in a while.
mtf_may_pass() {
  [[ $1 =~ [Uu]nable\ to\ contact|[Tt]imed\ out|[Cc]onnection|[Cc]ommunication|[Tt]ry\ again|[Tt]emporarily ]]
}

# The largest number among the claimed attempts goes into mtf_attempt.
mtf_look_for_last() {
  local folder number
  mtf_attempt=0
  for folder in "$mtf_run_dir"/attempts/*/; do
    folder=${folder%/}
    number=${folder##*/}
    if [[ $number =~ ^[0-9]+$ ]] && ((10#$number > mtf_attempt)); then
      mtf_attempt=$((10#$number))
    fi
  done
}

# Whether the process that claimed attempt $1 is on this host, and alive ($2: 0) or dead ($2: 1). Its number goes into
# mtf_pid. A number that is in use again counts as alive.
mtf_is_here() {
  mtf_read "$mtf_run_dir/attempts/$1/started.json"
  [[ $mtf_text == *"\"host\": \"$mtf_host\""* && $mtf_text =~ \"pid\":[[:space:]]*([0-9]+) ]] || return 1
  mtf_pid=${BASH_REMATCH[1]}
  kill -0 "$mtf_pid" 2>/dev/null
  (($? == $2))
}

# Started by hand: do not run beside an attempt that is still at work on this host.
mtf_refuse_beside() {
  [[ ! -e $mtf_run_dir/attempts/$1/finished.json ]] && mtf_is_here "$1" 0 || return 0
  mtf_die "attempt $1 seems to be running (process $mtf_pid); set MTF_FIRST_ATTEMPT=$(($1 + 1)) to start regardless"
}

# Make the folder of attempt $1: whoever does it runs the attempt.
mtf_claim() {
  mtf_attempt_dir=$mtf_run_dir/attempts/$1
  mtf_message=
  (mtf_be_deaf && exec mkdir -- "$mtf_attempt_dir") 2>/dev/null && return 0
  [[ -d $mtf_attempt_dir ]] && return 1
  mtf_message=$(mtf_be_deaf && mkdir -- "$mtf_attempt_dir" 2>&1) # the same again, for what it says
}

# Whether attempt $1 is over and was one of this very job, which Slurm runs again with a restart count that it had before:
# a controller that is killed may not have saved the last one.
mtf_is_left() {
  [[ -n $mtf_sweep_dir && -n $mtf_job_id ]] || return 1
  mtf_read "$mtf_run_dir/attempts/$1/started.json"
  [[ $mtf_text == *"\"token\": \"$mtf_token\""* && $mtf_text == *"\"job_id\": \"$mtf_job_id\""* ]] || return 1
  mtf_read_outcome "$mtf_run_dir/attempts/$1"
  case $mtf_outcome in
    preempted | wants-requeue) return 0 ;;
    '') mtf_is_here "$1" 1 ;; # killed, and nothing else can be at work
    *) return 1 ;;
  esac
}
