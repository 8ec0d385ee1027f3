
# From here on the file is the same for every run. Names begin with mtf_ so that the lines of slurm.setup, which run in
# this shell, do not collide with them.

mtf_die() {
  printf 'mtf: %s: %s\n' "$mtf_name" "$1" >&2
  exit 1
}

mtf_time() {
  date -u +%Y-%m-%dT%H:%M:%SZ
}

# From here on let nothing interrupt. Slurm signals every process of a job, so what is called must be deaf as well.
mtf_be_deaf() {
  trap '' $mtf_signals INT HUP
}

# Put the text $2 into the file $1, which is there whole or not at all.
mtf_publish() (
  mtf_be_deaf
  temporary="${1%/*}/.${1##*/}.$$.tmp"
  if printf '%s\n' "$2" >"$temporary"; then
    sync "$temporary" 2>/dev/null # not every system can sync one file
    mv -f -- "$temporary" "$1" && exit 0
  fi
  rm -f -- "$temporary"
  exit 1
)

# Say how the attempt ended: outcome $1, exit status $2, reason $3 (without quotes and backslashes).
mtf_say_end() {
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

# The same, unless the trainer has said it itself.
mtf_finish() {
  [[ -e $mtf_attempt_dir/finished.json ]] || mtf_say_end "$@"
}

# The outcome in the receipt of the attempt in folder $1.
mtf_outcome() {
  local receipt=
  [[ -e $1/finished.json ]] && receipt=$(<"$1/finished.json")
  [[ $receipt =~ \"outcome\":[[:space:]]*\"([a-z-]+)\" ]]
  printf '%s\n' "${BASH_REMATCH[1]:-}"
}

# End with the status that stands for the outcome in the receipt.
mtf_leave() {
  trap - EXIT
  mtf_be_deaf
  [[ $(mtf_outcome "$mtf_attempt_dir") == preempted ]] && mtf_queue_again
  case $(mtf_outcome "$mtf_attempt_dir") in
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

# Pass signal $1 on to the command; one that comes before the command runs keeps it from starting. No $(...) here: bash
# cannot take another signal while it reads one in a trap.
mtf_forward() {
  mtf_signalled=$1
  mtf_interrupted=1
  [[ $1 == TERM ]] && set -- "$mtf_as_term"
  [[ -n $mtf_child ]] && kill -s "$1" "$mtf_child" 2>/dev/null
}

# Whether the submission that the job belongs to has been withdrawn.
mtf_is_cancelled() {
  [[ -e $mtf_sweep_dir/submissions/$mtf_token/cancelled/${mtf_run_dir##*/} ]]
}

# Whether some attempt has finished.
mtf_has_finished() {
  local folder
  for folder in "$mtf_run_dir"/attempts/*/; do
    [[ $(mtf_outcome "${folder%/}") == finished ]] && return 0
  done
  return 1
}

# What grows while training goes on: the metrics, and the names of the checkpoints.
mtf_progress() {
  local checkpoints=$mtf_checkpoints
  [[ $checkpoints == /* ]] || checkpoints=$mtf_run_dir/$checkpoints
  printf 'metrics '
  if [[ -e $mtf_run_dir/metrics.jsonl ]]; then wc -c <"$mtf_run_dir/metrics.jsonl"; else echo 0; fi
  ls -1 -- "$checkpoints" 2>/dev/null
}

# Whether nothing has come of the attempts of this submission from number $1 on.
mtf_is_stalled() {
  local before=$mtf_run_dir/attempts/$1/before.txt now name bytes bytes_before
  (($1 >= mtf_first_attempt)) && [[ -s $before ]] || return 1
  now=$(mtf_progress)
  read -r name bytes <<<"$now"
  read -r name bytes_before <"$before"
  ((bytes <= bytes_before)) && ! tail -n +2 <<<"$now" | LC_ALL=C grep -qvxFf "$before"
}

# Whether the run has had its chances; $mtf_why says how. Three attempts are judged, the first of them number $1.
mtf_is_spent() {
  local folder preemptions=0
  for folder in "$mtf_run_dir"/attempts/*/; do
    case $(mtf_outcome "${folder%/}") in
      preempted | wants-requeue) preemptions=$((preemptions + 1)) ;;
    esac
  done
  if [[ -n $mtf_max_preemptions ]] && ((preemptions > mtf_max_preemptions)); then
    mtf_why="preempted $preemptions times, and preemption.max_preemptions is $mtf_max_preemptions"
  elif mtf_is_stalled "$1"; then
    mtf_why='3 attempts in a row ended without progress; see the logs'
  else
    return 1
  fi
}

# What Slurm answered ($1) may be another answer in a while.
mtf_may_pass() {
  [[ $1 =~ [Uu]nable\ to\ contact|[Tt]imed\ out|[Cc]onnection|[Cc]ommunication|[Tt]ry\ again|[Tt]emporarily ]]
}

# Have Slurm queue the job of the preempted attempt again, unless it does so already or the job is to end.
mtf_queue_again() {
  [[ -n $mtf_sweep_dir ]] || return 0
  mtf_is_cancelled && return 0
  if mtf_is_spent $((mtf_attempt - 2)); then
    mtf_say_end do-not-requeue 76 "$mtf_why"
    return 0
  fi
  local answer pause=1 deadline=$((SECONDS + mtf_requeue_timeout_s))
  while :; do
    if answer=$(squeue --noheader --jobs="$mtf_job_id" --format='%T %r' 2>&1); then
      case $answer in
        'RUNNING '* | 'SIGNALING '* | 'RESIZING '* | *' TimeLimit') ;;
        *) return 0 ;; # cancelled, or requeued by Slurm itself: neither is for us to change
      esac
      answer=$(scontrol requeue "$mtf_job_id" 2>&1) && return 0
    fi
    mtf_may_pass "$answer" && ((SECONDS < deadline)) || break
    printf 'mtf: cannot requeue yet: %s\n' "$answer"
    sleep $pause
    pause=$((pause < 16 ? 2 * pause : 16))
  done
  answer=${answer##*$'\n'}
  mtf_say_end wants-requeue 75 "the state is saved, but Slurm does not requeue the job: ${answer//[\"\\[:cntrl:]]/ }"
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
mtf_sweep_dir=${MTF_SWEEP_DIR:-}     # set by the script of a submission to Slurm: the job is ours to requeue
mtf_requeue_timeout_s=900
[[ $mtf_token =~ ^[A-Za-z0-9._-]+$ ]] || mtf_die "MTF_TOKEN='$mtf_token' is not a token"
[[ $mtf_job_id =~ ^[A-Za-z0-9._-]*$ ]] || mtf_die "'$mtf_job_id' is not a job id"
[[ $mtf_restart =~ ^[0-9]+$ ]] || mtf_die "SLURM_RESTART_COUNT='$mtf_restart' is not a number"
if [[ -z ${MTF_FIRST_ATTEMPT:-} ]]; then
  mtf_attempt=$(mtf_highest)
  mtf_refuse_beside "$mtf_attempt"
  MTF_FIRST_ATTEMPT=$((mtf_attempt + 1))
fi
[[ $MTF_FIRST_ATTEMPT =~ ^[1-9][0-9]*$ ]] || mtf_die "MTF_FIRST_ATTEMPT='$MTF_FIRST_ATTEMPT' is not a number from 1"
mtf_first_attempt=$MTF_FIRST_ATTEMPT
mtf_attempt=$((mtf_first_attempt + mtf_restart))
mtf_attempt_dir=$mtf_run_dir/attempts/$mtf_attempt
mtf_log=$mtf_run_dir/logs/attempt-$mtf_attempt.log

mtf_child=
mtf_signalled=
mtf_as_term=TERM
for mtf_signal in $mtf_signals; do
  # shellcheck disable=SC2064 # the name is wanted now
  trap "mtf_forward $mtf_signal" "$mtf_signal"
done
# A terminal sends INT to the command too, where a second one means "at once"; TERM says the same and can be repeated.
trap 'mtf_forward TERM' INT HUP

if [[ -n $mtf_sweep_dir ]] && mtf_is_cancelled; then
  printf 'mtf: %s: cancelled, nothing to do\n' "$mtf_name" >&2
  exit 0
fi

if [[ -n $mtf_sweep_dir ]] && mtf_has_finished; then
  # a controller that was restarted runs a job again which it does not know to be over
  printf 'mtf: %s: finished before, nothing to do\n' "$mtf_name" >&2
  exit 0
fi

# The claim: whoever makes this folder runs the attempt.
mkdir -p -- "$mtf_run_dir/attempts" "$mtf_run_dir/logs" || mtf_die "cannot make folders in $mtf_run_dir"
if ! mtf_message=$(mtf_be_deaf && mkdir -- "$mtf_attempt_dir" 2>&1); then
  [[ -d $mtf_attempt_dir ]] || mtf_die "cannot claim attempt $mtf_attempt: $mtf_message"
  printf 'mtf: %s: attempt %s is taken, nothing to do\n' "$mtf_name" "$mtf_attempt" >&2
  exit 0
fi
if [[ -n $mtf_job_id ]]; then mtf_quoted_id="\"$mtf_job_id\""; else mtf_quoted_id=null; fi
mtf_publish "$mtf_attempt_dir/started.json" "{
  \"version\": 1,
  \"attempt\": $mtf_attempt,
  \"token\": \"$mtf_token\",
  \"restart\": $mtf_restart,
  \"host\": \"$mtf_host\",
  \"pid\": $$,
  \"job_id\": $mtf_quoted_id,
  \"started_at\": \"$(mtf_time)\"
}" || mtf_die "cannot write the start receipt of attempt $mtf_attempt to $mtf_attempt_dir"
trap 'mtf_end failed $? "the script ended before the command ran; see the log"' EXIT
exec >>"$mtf_log" 2>&1 || mtf_end failed null 'the log cannot be written'
if [[ -n $mtf_sweep_dir ]]; then
  mtf_publish "$mtf_attempt_dir/before.txt" "$(mtf_progress)" || mtf_end failed null 'what there is cannot be noted'
  # Slurm may have requeued the job by itself, without asking whether that makes sense
  ((mtf_restart > 0)) && mtf_is_spent $((mtf_attempt - 3)) && mtf_end do-not-requeue 76 "$mtf_why"
fi

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
unset MTF_FIRST_ATTEMPT MTF_JOB_ID MTF_SWEEP_DIR # they are about this attempt, not about what the command may start
CDPATH='' cd -- "$mtf_project_root" >/dev/null || mtf_end failed null 'the project root cannot be entered'

[[ -n $mtf_signalled ]] && mtf_end preempted null "told to stop (SIG$mtf_signalled) before the command ran"
mtf_before=()
if ((mtf_tasks > 1)) && [[ -n $mtf_job_id ]]; then
  # A task that ends with another status than 0 takes the others with it. One that was preempted must not: they may
  # still be saving. Each says how it ended in a file.
  mtf_task='trap : $0; (exec -- "$@"); status=$?
    case $status in 75 | 76) echo $status >"$MTF_RUN_DIR/attempts/$MTF_ATTEMPT/task-$SLURM_PROCID" ;; esac
    ((status == 75)) && exit 0
    exit $status'
  mtf_before=(srun --kill-on-bad-exit=1 --export=ALL --nodes="$mtf_nodes" --ntasks="$mtf_tasks"
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c "$mtf_task" "$mtf_signals")
  mtf_as_term=$mtf_instead_of_term # on SIGTERM, srun kills its tasks at once
fi
# A signal that reaches the new process before it has let go of this script's traps is lost: it says when it has.
mtf_ready=
trap 'mtf_ready=1' URG
(kill -s URG $$ && mtf_command "${mtf_before[@]}") &
mtf_new=$!
while [[ -z $mtf_ready ]] && kill -0 "$mtf_new" 2>/dev/null; do sleep 0.01; done
mtf_child=$mtf_new
# A signal that comes just before bash falls asleep in `wait` would be noticed only at the end: wake it once.
trap 'mtf_interrupted=1' URG
(mtf_be_deaf && sleep 2 && kill -s URG $$) </dev/null >/dev/null 2>&1 &
mtf_waker=$!
disown "$mtf_waker" # so that bash does not tell of its end
[[ -n $mtf_signalled ]] && mtf_forward "$mtf_signalled"
while :; do
  mtf_interrupted=
  wait "$mtf_child"
  mtf_status=$?
  [[ -n $mtf_interrupted ]] || break # else the status is that of the trap, and the command may still run
done
trap '' URG
kill -s KILL "$mtf_waker" 2>/dev/null

# When the command ends at the very moment of a trap, bash 5 can lose its status, and says -1 or that it has no such job.
if ((mtf_status < 0)) || { ((mtf_status == 127)) && [[ -n $mtf_signalled ]]; }; then
  mtf_end preempted null "how the command ended was missed${mtf_signalled:+, after SIG$mtf_signalled}"
fi
mtf_said=$(cat "$mtf_attempt_dir"/task-* 2>/dev/null)
if [[ $mtf_said == *76* ]]; then
  mtf_status=76
elif [[ -n $mtf_said ]] && ((mtf_status == 0)); then
  mtf_status=75
fi
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
