
mtf_run_dir=${BASH_SOURCE[0]%/*}
if [[ -z ${MTF_FIRST_ATTEMPT:-} || ${BASH_SOURCE[0]} != /* ]]; then # by hand; a launcher gives the path as it is
  [[ ${BASH_SOURCE[0]} == */* ]] || mtf_run_dir=.
  mtf_run_dir=$(CDPATH='' cd -- "${mtf_run_dir:-/}" >/dev/null && pwd)
  [[ -n $mtf_run_dir ]] || mtf_die 'cannot enter the folder of the run' # bash that finds no descriptor reports success
fi
mtf_host=
[[ -r /proc/sys/kernel/hostname ]] && read -r mtf_host </proc/sys/kernel/hostname
[[ -n $mtf_host ]] || mtf_host=$(uname -n) # HOSTNAME may be inherited from another host
mtf_token=${MTF_TOKEN:-by-hand}
mtf_restart=${SLURM_RESTART_COUNT:-0}
mtf_job_id=${SLURM_JOB_ID:-}
[[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && mtf_job_id=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}
mtf_job_id=${MTF_JOB_ID-$mtf_job_id} # set, and empty, by a launcher that uses no scheduler
mtf_sweep_dir=${MTF_SWEEP_DIR:-}     # set by the script of a submission to Slurm: the job is ours to requeue
mtf_shared=${MTF_SHARED:-}           # set where other runs share the job
mtf_requeue_timeout_s=900
[[ $mtf_token =~ ^[A-Za-z0-9._-]+$ ]] || mtf_die "MTF_TOKEN='$mtf_token' is not a token"
[[ $mtf_job_id =~ ^[A-Za-z0-9._-]*$ ]] || mtf_die "'$mtf_job_id' is not a job id"
[[ $mtf_restart =~ ^[0-9]+$ ]] || mtf_die "SLURM_RESTART_COUNT='$mtf_restart' is not a number"
if [[ -z ${MTF_FIRST_ATTEMPT:-} ]]; then
  mtf_look_for_last
  mtf_refuse_beside "$mtf_attempt"
  MTF_FIRST_ATTEMPT=$((mtf_attempt + 1))
fi
[[ $MTF_FIRST_ATTEMPT =~ ^[1-9][0-9]*$ ]] || mtf_die "MTF_FIRST_ATTEMPT='$MTF_FIRST_ATTEMPT' is not a number from 1"
mtf_first_attempt=$MTF_FIRST_ATTEMPT
mtf_attempt=$((mtf_first_attempt + mtf_restart))

mtf_child=
mtf_signalled=
mtf_pending=
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

if [[ -n $mtf_shared ]] && mtf_has_failed; then
  printf 'mtf: %s: failed before, nothing to do\n' "$mtf_name" >&2
  exit 0
fi

if [[ ! -d $mtf_run_dir/attempts || ! -d $mtf_run_dir/logs ]]; then
  mkdir -p -- "$mtf_run_dir/attempts" "$mtf_run_dir/logs" || mtf_die "cannot make folders in $mtf_run_dir"
fi
while ! mtf_claim "$mtf_attempt"; do
  [[ -d $mtf_attempt_dir ]] || mtf_die "cannot claim attempt $mtf_attempt: $mtf_message"
  if ! mtf_is_left "$mtf_attempt"; then
    printf 'mtf: %s: attempt %s is taken, nothing to do\n' "$mtf_name" "$mtf_attempt" >&2
    exit 0
  fi
  mtf_attempt=$((mtf_attempt + 1))
done
mtf_log=$mtf_run_dir/logs/attempt-$mtf_attempt.log
if [[ -n $mtf_job_id ]]; then mtf_quoted_id="\"$mtf_job_id\""; else mtf_quoted_id=null; fi
mtf_look_at_clock
# In one piece, and not moved into place: nobody takes an empty one for a receipt. The end makes sure that it is on the disk.
printf '{"version": 1, "attempt": %s, "token": "%s", "restart": %s, "host": "%s", "pid": %s, "job_id": %s, "started_at": "%s"}\n' \
  "$mtf_attempt" "$mtf_token" "$mtf_restart" "$mtf_host" $$ "$mtf_quoted_id" "$mtf_now" >"$mtf_attempt_dir/started.json" || {
  rm -f -- "$mtf_attempt_dir/started.json"
  mtf_die "cannot write the start receipt of attempt $mtf_attempt to $mtf_attempt_dir"
}
trap 'mtf_end failed null "the script ended before the command ran; see the log"' EXIT
exec >>"$mtf_log" 2>&1 || mtf_end failed null 'the log cannot be written'
mtf_note_progress || mtf_end failed null 'what there is cannot be noted'
if [[ -n $mtf_sweep_dir ]]; then
  # Slurm may have requeued the job by itself, without asking whether that makes sense
  ((mtf_attempt > mtf_first_attempt)) && mtf_is_spent $((mtf_attempt - mtf_max_stalled)) &&
    mtf_end do-not-requeue null "$mtf_why" "$mtf_limit"
fi

if [[ -n $mtf_setup ]]; then
  CDPATH='' cd -- "$mtf_project_root" >/dev/null 2>&1 || cd -- "$mtf_run_dir" || mtf_end failed null 'no folder for slurm.setup'
  # As `set -e` would see it, but for the command lines themselves: what a line calls or reads in was written for
  # interactive shells, and would not survive `set -e`. So it tells by its own status whether it has done its work.
  mtf_depth=${#BASH_SOURCE[@]}
  mtf_line=
  # each line of the setup itself, not those of functions; in the traps below the one that is at work is told once more
  # (what reads this script in stands there when a line ends it)
  trap '[[ $BASH_COMMAND == "eval \"\$mtf_setup\""* || $BASH_COMMAND == ". \"\$mtf_sweep_dir/runs/"* ]] || { mtf_line_before=$mtf_line; mtf_line=$BASH_COMMAND; }' DEBUG
  trap 'mtf_refuse_setup $? "$mtf_line" "ended the script with"' EXIT
  trap 'mtf_refuse_setup $? "$mtf_line_before" "ended with" ${#BASH_SOURCE[@]} "$BASH_COMMAND"' ERR
  # at the top, for a declaration in a function would be gone with it; the last line makes what precedes it no last one
  eval "$mtf_setup"$'\n\n:'
  trap - DEBUG ERR
  trap 'mtf_end failed null "the script ended before the command ran; see the log"' EXIT
  mtf_be_plain
fi

mtf_paths=$mtf_project_root:$mtf_project_root/src
if [[ -n $mtf_code ]]; then # a copy of the code, in the folder of the sweep
  mtf_base=${mtf_run_dir%/*/*}
  # which no git repository is, whatever the folder of the sweep lies in
  export GIT_CEILING_DIRECTORIES=$mtf_base/code${GIT_CEILING_DIRECTORIES:+:$GIT_CEILING_DIRECTORIES}
  unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
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
unset MTF_FIRST_ATTEMPT MTF_JOB_ID MTF_SWEEP_DIR MTF_SHARED # they are about this attempt, not about what the command may start
CDPATH='' cd -- "$mtf_project_root" >/dev/null || mtf_end failed null 'the project root cannot be entered'

[[ -n $mtf_signalled ]] && mtf_end preempted null "told to stop (SIG$mtf_signalled) before the command ran"
# who cancels a run of a shared job leaves a mark, and then tells it if it has made its claim: one of the two is seen
[[ -n $mtf_shared ]] && mtf_is_cancelled && mtf_end preempted null 'cancelled before the command ran'
mtf_before=()
if ((mtf_tasks > 1)) && [[ -n $mtf_job_id ]]; then
  # A task that ends with another status than 0 takes the others with it. One that was preempted must not: they may
  # still be saving. Each says how it ended in a file; of those that failed the first one does: srun's own status is that
  # of the others, which it killed.
  mtf_task='trap : $0; (exec -- "$@"); status=$?; said=$MTF_RUN_DIR/attempts/$MTF_ATTEMPT
    case $status in
      0) ;;
      75 | 76) echo $status >"$said/task-$SLURM_PROCID" ;;
      *)
        name=-
        ((status > 128)) && name=$(kill -l $status 2>/dev/null)
        [[ " $0 INT HUP " == *" $name "* ]] || (set -C; echo "$SLURM_PROCID $status" >"$said/failed-first") 2>/dev/null
        ;;
    esac
    ((status == 75)) && exit 0
    exit $status'
  mtf_before=(srun --label --kill-on-bad-exit=1 --export=ALL --nodes="$mtf_nodes" --ntasks="$mtf_tasks"
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c "$mtf_task" "$mtf_signals")
  mtf_as_term=$mtf_instead_of_term # on SIGTERM, srun kills its tasks at once
fi
mtf_find_group
mtf_count_kills
mtf_kills_before=$mtf_kills
mtf_command "${mtf_before[@]}" </dev/null &
mtf_child=$!
mtf_pass_on
mtf_status=
mtf_await 9> >(mtf_wake)
[[ -n $mtf_status ]] || mtf_await # there was no process or descriptor left for what wakes it

# When the command ends at the very moment of a trap, bash 5 can lose its status, and says -1 or that it has no such job.
if ((mtf_status < 0)) || { ((mtf_status == 127)) && [[ -n $mtf_signalled ]]; }; then
  mtf_end preempted null "how the command ended was missed${mtf_signalled:+, after SIG$mtf_signalled}"
fi
mtf_said=
for mtf_path in "$mtf_attempt_dir"/task-*; do
  mtf_read "$mtf_path"
  mtf_said+=$mtf_text
done
mtf_which=
if [[ -s $mtf_attempt_dir/failed-first ]]; then
  read -r mtf_first mtf_status <"$mtf_attempt_dir/failed-first"
  mtf_which="task $mtf_first of $mtf_tasks failed first: "
  printf 'mtf: %s: its last lines:\n' "${mtf_which%: }"
  # so that whoever looks at the end of the log sees the cause, and not what the others say of their lost connections
  tail -n 2000 "$mtf_log" | sed -n "s/^ *$mtf_first: //p" | tail -n 40
elif [[ $mtf_said == *76* ]]; then
  mtf_status=76
elif [[ -n $mtf_said ]] && ((mtf_status == 0)); then
  mtf_status=75
fi
case $mtf_status in
  0) mtf_end finished 0 '' ;;
  75) mtf_end preempted 75 'told to stop; the state is saved' ;;
  76) mtf_end do-not-requeue 76 '' ;; # why is in the log
  126 | 127) mtf_end failed "$mtf_status" "${mtf_which}the command cannot be run; see the log" ;;
esac
mtf_signal=
mtf_signal_of "$mtf_status" && mtf_announces "$mtf_signal" &&
  mtf_end preempted "$mtf_status" "ended by SIG$mtf_signal, on its own terms"
mtf_has_starved && mtf_end failed "$mtf_status" "${mtf_which}out of memory${mtf_figure:+ ($mtf_figure)}"
[[ -n $mtf_signal ]] || mtf_end failed "$mtf_status" "${mtf_which}exit status $mtf_status"
[[ $mtf_signal == KILL ]] && mtf_end failed "$mtf_status" "${mtf_which}killed by SIGKILL, by hand or for want of memory"
mtf_end failed "$mtf_status" "${mtf_which}ended by SIG$mtf_signal"
