
# Does the runs of a task, so many at a time, each by its job.sh. What becomes of one is no matter of the others: each has
# its claim, its log and its receipts.

# Send signal $2 to the run whose job.sh is process $1.
mtf_tell() {
  local mtf_child=$1
  mtf_let_start
  kill -s "$2" "$1" 2>/dev/null
}

# Pass signal $1 on to the runs at work, and begin no other.
mtf_stop_all() {
  local child
  mtf_stopped=$1
  for child in "${!mtf_at_work[@]}"; do mtf_tell "$child" "$1"; done
}

# Tell those of the runs at work to stop that have been cancelled, each of them once.
mtf_stop_cancelled() {
  local child mtf_run_dir
  for child in "${!mtf_at_work[@]}"; do
    mtf_run_dir=$mtf_sweep_dir/runs/${mtf_at_work[child]}
    if [[ -z ${mtf_told[child]-} ]] && mtf_is_cancelled; then
      mtf_told[child]=1
      mtf_tell "$child" TERM
    fi
  done
}

# Begin the run of line $1.
mtf_begin() {
  MTF_FIRST_ATTEMPT="${1%% *}" MTF_SHARED=1 bash "$mtf_sweep_dir/runs/${1#* }/job.sh" </dev/null &
  mtf_at_work[$!]=${1#* }
  [[ -z $mtf_stopped ]] || mtf_tell $! "$mtf_stopped" # it came while the run was begun
}

# Wait until some run is over, for a while: a signal that comes just before bash falls asleep does not wake it.
mtf_wait() {
  if [[ -z $mtf_tick ]] || ! kill -0 "$mtf_tick" 2>/dev/null; then
    (mtf_be_deaf && exec sleep 5) </dev/null >/dev/null 2>&1 &
    mtf_tick=$!
  fi
  # before bash 4.3 nothing waits for whatever ends first
  if ((BASH_VERSINFO[0] > 4 || BASH_VERSINFO[1] > 2)); then wait -n; else wait "$mtf_tick"; fi 2>/dev/null
  local child
  for child in "${!mtf_at_work[@]}"; do
    if ! kill -0 "$child" 2>/dev/null; then
      wait "$child" 2>/dev/null # its receipts tell how it ended
      unset "mtf_at_work[child]" "mtf_told[child]"
    fi
  done
}

# What is left to do of the run of line $1: adds it to mtf_saved if it was preempted, else counts it in mtf_unbegun if it
# was not begun, or in mtf_failed if it failed.
mtf_take_stock() {
  mtf_first_attempt=${1%% *}
  mtf_run_dir=$mtf_sweep_dir/runs/${1#* }
  mtf_has_finished || mtf_is_cancelled && return
  mtf_look_for_last
  if ((mtf_attempt < mtf_first_attempt)); then
    mtf_unbegun=$((mtf_unbegun + 1))
    return
  fi
  mtf_read_outcome "$mtf_run_dir/attempts/$mtf_attempt"
  case $mtf_outcome in
    preempted) mtf_saved+=("$mtf_attempt ${1#* }") ;;
    *) mtf_failed=$((mtf_failed + 1)) ;;
  esac
}

mtf_token=$MTF_TOKEN
mtf_sweep_dir=$MTF_SWEEP_DIR
mtf_job_id=$SLURM_JOB_ID
[[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && mtf_job_id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
mtf_requeue_timeout_s=900
mtf_list=$mtf_sweep_dir/submissions/$mtf_token/$mtf_number.tasks
mapfile -t -s $(($1 * mtf_runs_per_task)) -n "$mtf_runs_per_task" mtf_lines <"$mtf_list" || mtf_die "cannot read $mtf_list"
((${#mtf_lines[@]} > 0)) || mtf_die "$mtf_list has no lines for it"
mtf_at_work=() # the names of the runs at work, by the numbers of their processes
mtf_told=()
mtf_stopped=
mtf_tick=
for mtf_signal in $mtf_signals; do
  # shellcheck disable=SC2064 # the name is wanted now
  trap "mtf_stop_all $mtf_signal" "$mtf_signal"
done
trap 'mtf_stop_all TERM' INT HUP
trap mtf_stop_cancelled URG

mtf_next=0
while :; do
  while [[ -z $mtf_stopped ]] && ((mtf_next < ${#mtf_lines[@]} && ${#mtf_at_work[@]} < mtf_runs_at_once)); do
    mtf_begin "${mtf_lines[mtf_next]}"
    mtf_next=$((mtf_next + 1))
  done
  ((${#mtf_at_work[@]} > 0)) || break
  mtf_wait
done
mtf_be_deaf
trap '' URG
{ kill -s KILL "$mtf_tick" && wait "$mtf_tick"; } 2>/dev/null

mtf_saved=()
mtf_unbegun=0
mtf_failed=0
for mtf_line in "${mtf_lines[@]}"; do mtf_take_stock "$mtf_line"; done
# a run that could not even be begun by a job that nobody stopped would not be begun by the next one either
[[ -n $mtf_stopped ]] || mtf_failed=$((mtf_failed + mtf_unbegun)) mtf_unbegun=0
if ((${#mtf_saved[@]} + mtf_unbegun > 0)); then
  if ! mtf_requeue; then
    printf 'mtf: %s: Slurm does not requeue the job: %s\n' "$mtf_name" "$mtf_answer" >&2
    for mtf_line in "${mtf_saved[@]}"; do
      mtf_attempt=${mtf_line%% *}
      mtf_attempt_dir=$mtf_sweep_dir/runs/${mtf_line#* }/attempts/$mtf_attempt
      mtf_say_not_queued
    done
  fi
  exit 75
fi
exit $((mtf_failed > 0))
