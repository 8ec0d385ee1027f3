
# From here on the file is the same for every run. Names begin with mtf_ so that the lines of slurm.setup, which run in
# this shell, do not collide with them.

mtf_die() {
  printf 'mtf: %s: %s\n' "$mtf_name" "$1" >&2
  exit 1
}

mtf_time() {
  date -u +%Y-%m-%dT%H:%M:%SZ
}

# Put the text $2 into the file $1, which is there whole or not at all.
mtf_publish() {
  local temporary="${1%/*}/.${1##*/}.$$.tmp"
  if printf '%s\n' "$2" >"$temporary"; then
    sync "$temporary" 2>/dev/null # not every system can sync one file
    mv -f -- "$temporary" "$1" && return 0
  fi
  rm -f -- "$temporary"
  return 1
}

# Say how the attempt ended: outcome $1, exit status $2, reason $3 (without quotes and backslashes). What the trainer
# said itself stands.
mtf_finish() {
  [[ -e $mtf_attempt_dir/finished.json ]] && return 0
  local reason=null
  [[ -n $3 ]] && reason="\"$3\""
  mtf_publish "$mtf_attempt_dir/finished.json" "{
  \"version\": 1,
  \"attempt\": $mtf_attempt,
  \"outcome\": \"$1\",
  \"exit_status\": $2,
  \"reason\": $reason,
  \"finished_at\": \"$(mtf_time)\"
}" || mtf_die "attempt $mtf_attempt ended ($1), but its receipt cannot be written to $mtf_attempt_dir"
}

# End with the status that stands for the outcome in the receipt.
mtf_leave() {
  trap - EXIT
  local receipt
  receipt=$(<"$mtf_attempt_dir/finished.json")
  [[ $receipt =~ \"outcome\":[[:space:]]*\"([a-z-]+)\" ]]
  case ${BASH_REMATCH[1]:-} in
    finished) exit 0 ;;
    preempted | wants-requeue) exit 75 ;;
    do-not-requeue) exit 76 ;;
    *) exit 1 ;;
  esac
}

mtf_end() {
  mtf_finish "$@"
  mtf_leave
}

# Pass signal $1 on to the command; one that comes before the command runs keeps it from starting.
mtf_forward() {
  mtf_signalled=$1
  mtf_interrupted=1
  [[ -n $mtf_child ]] && kill -s "$1" "$mtf_child" 2>/dev/null
}

# The largest number among the claimed attempts.
mtf_highest() {
  local folder number highest=0
  for folder in "$mtf_run_dir"/attempts/*/; do
    folder=${folder%/}
    number=${folder##*/}
    if [[ $number =~ ^[0-9]+$ ]] && ((10#$number > highest)); then
      highest=$((10#$number))
    fi
  done
  printf '%s\n' "$highest"
}

# Started by hand: do not run beside an attempt that is still at work on this host.
mtf_refuse_beside() {
  local folder="$mtf_run_dir/attempts/$1" receipt
  [[ -e $folder/started.json && ! -e $folder/finished.json ]] || return 0
  receipt=$(<"$folder/started.json")
  if [[ $receipt =~ \"pid\":[[:space:]]*([0-9]+) ]] && [[ $receipt == *"\"host\": \"$mtf_host\""* ]] &&
    kill -0 "${BASH_REMATCH[1]}" 2>/dev/null; then
    mtf_die "attempt $1 seems to be running (process ${BASH_REMATCH[1]}); set MTF_FIRST_ATTEMPT=$(($1 + 1)) to start regardless"
  fi
}

case ${BASH_SOURCE[0]} in
  */*) mtf_run_dir=${BASH_SOURCE[0]%/*} ;;
  *) mtf_run_dir=. ;;
esac
mtf_run_dir=$(CDPATH='' cd -- "${mtf_run_dir:-/}" >/dev/null && pwd) || mtf_die 'cannot enter the folder of the run'
mtf_host=$(uname -n)
mtf_token=${MTF_TOKEN:-by-hand}
mtf_restart=${SLURM_RESTART_COUNT:-0}
mtf_job_id=${SLURM_JOB_ID:-}
[[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && mtf_job_id=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}
mtf_job_id=${MTF_JOB_ID-$mtf_job_id} # set, and empty, by a launcher that uses no scheduler
[[ $mtf_token =~ ^[A-Za-z0-9._-]+$ ]] || mtf_die "MTF_TOKEN='$mtf_token' is not a token"
[[ $mtf_job_id =~ ^[A-Za-z0-9._-]*$ ]] || mtf_die "'$mtf_job_id' is not a job id"
[[ $mtf_restart =~ ^[0-9]+$ ]] || mtf_die "SLURM_RESTART_COUNT='$mtf_restart' is not a number"
if [[ -z ${MTF_FIRST_ATTEMPT:-} ]]; then
  mtf_attempt=$(mtf_highest)
  mtf_refuse_beside "$mtf_attempt"
  MTF_FIRST_ATTEMPT=$((mtf_attempt + 1))
fi
[[ $MTF_FIRST_ATTEMPT =~ ^[1-9][0-9]*$ ]] || mtf_die "MTF_FIRST_ATTEMPT='$MTF_FIRST_ATTEMPT' is not a number from 1"
mtf_attempt=$((MTF_FIRST_ATTEMPT + mtf_restart))
mtf_attempt_dir=$mtf_run_dir/attempts/$mtf_attempt
mtf_log=$mtf_run_dir/logs/attempt-$mtf_attempt.log

mtf_child=
mtf_signalled=
for mtf_signal in $mtf_signals; do
  # shellcheck disable=SC2064 # the name is wanted now
  trap "mtf_forward $mtf_signal" "$mtf_signal"
done
# A terminal sends INT to the command too, where a second one means "at once"; TERM says the same and can be repeated.
trap 'mtf_forward TERM' INT HUP

# The claim: whoever makes this folder runs the attempt.
mkdir -p -- "$mtf_run_dir/attempts" "$mtf_run_dir/logs" || mtf_die "cannot make folders in $mtf_run_dir"
if ! mtf_message=$(mkdir -- "$mtf_attempt_dir" 2>&1); then
  [[ -d $mtf_attempt_dir ]] || mtf_die "cannot claim attempt $mtf_attempt: $mtf_message"
  printf 'mtf: %s: attempt %s is taken, nothing to do\n' "$mtf_name" "$mtf_attempt" >&2
  exit 0
fi
if [[ -n $mtf_job_id ]]; then mtf_job_id="\"$mtf_job_id\""; else mtf_job_id=null; fi
mtf_publish "$mtf_attempt_dir/started.json" "{
  \"version\": 1,
  \"attempt\": $mtf_attempt,
  \"token\": \"$mtf_token\",
  \"restart\": $mtf_restart,
  \"host\": \"$mtf_host\",
  \"pid\": $$,
  \"job_id\": $mtf_job_id,
  \"started_at\": \"$(mtf_time)\"
}" || mtf_die "cannot write the start receipt of attempt $mtf_attempt to $mtf_attempt_dir"
trap 'mtf_finish failed $? "the script ended before the command ran; see the log"; mtf_leave' EXIT
exec >>"$mtf_log" 2>&1 || mtf_end failed null 'the log cannot be written'

eval "$mtf_setup"
set +eu

mtf_paths=$mtf_project_root:$mtf_project_root/src
if [[ -n $mtf_code ]]; then # a copy of the code, in the folder of the sweep
  mtf_base=${mtf_run_dir%/*/*}
  mtf_project_root=$mtf_base/$mtf_code
  mtf_paths=
  for mtf_path in "${mtf_python_path[@]}"; do
    mtf_paths+=${mtf_paths:+:}$mtf_base/$mtf_path
  done
fi
export MTF_RUN_DIR=$mtf_run_dir MTF_CONFIG=$mtf_run_dir/config.json MTF_EXPERIMENT=$mtf_name
export MTF_ATTEMPT=$mtf_attempt MTF_TOKEN=$mtf_token MTF_PROJECT_ROOT=$mtf_project_root
export PYTHONPATH=$mtf_paths${PYTHONPATH:+:$PYTHONPATH}
export PYTHONHASHSEED=${PYTHONHASHSEED:-0} PYTHONUNBUFFERED=1
[[ $mtf_deterministic == 1 ]] && export CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG:-:4096:8}
unset MTF_FIRST_ATTEMPT MTF_JOB_ID # they are about this attempt, not about what the command may start
CDPATH='' cd -- "$mtf_project_root" >/dev/null || mtf_end failed null 'the project root cannot be entered'

[[ -n $mtf_signalled ]] && mtf_end preempted null "told to stop (SIG$mtf_signalled) before the command ran"
(mtf_command) &
mtf_child=$!
[[ -n $mtf_signalled ]] && kill -s "$mtf_signalled" "$mtf_child" 2>/dev/null
while :; do
  mtf_interrupted=
  wait "$mtf_child"
  mtf_status=$?
  [[ -n $mtf_interrupted ]] || break # else the status is that of the trap, and the command may still run
done

case $mtf_status in
  0) mtf_end finished 0 '' ;;
  75) mtf_end preempted 75 'told to stop; the state is saved' ;;
  76) mtf_end do-not-requeue 76 '' ;; # why is in the log
  126 | 127) mtf_end failed "$mtf_status" 'the command cannot be run; see the log' ;;
esac
((mtf_status > 128)) || mtf_end failed "$mtf_status" "exit status $mtf_status"
mtf_signal=$(kill -l "$mtf_status" 2>/dev/null) || mtf_end failed "$mtf_status" "exit status $mtf_status"
case " $mtf_signals INT HUP " in
  *" $mtf_signal "*) mtf_end preempted "$mtf_status" "ended by SIG$mtf_signal, on its own terms" ;;
esac
[[ $mtf_signal == KILL ]] && mtf_end failed "$mtf_status" 'killed by SIGKILL, by hand or for want of memory'
mtf_end failed "$mtf_status" "ended by SIG$mtf_signal"
