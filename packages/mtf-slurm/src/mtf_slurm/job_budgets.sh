
# Whether the run has had its chances, and what follows when it has not: a job queues itself again.

# What grows while training goes on goes into mtf_bytes, the size of the metrics, and mtf_names, those of the checkpoints.
mtf_look_at_progress() {
  local checkpoints name
  mtf_look_for_checkpoints
  checkpoints=$mtf_text
  [[ $checkpoints == /* ]] || checkpoints=$mtf_run_dir/$checkpoints
  mtf_bytes=0
  [[ -s $mtf_run_dir/metrics.jsonl ]] && mtf_bytes=$(wc -c <"$mtf_run_dir/metrics.jsonl")
  mtf_names=
  for name in "$checkpoints"/*; do
    [[ -e $name ]] && mtf_names+=${name##*/}$'\n'
  done
}

# Note what there is when the attempt starts. Without a note there was nothing.
mtf_note_progress() {
  mtf_look_at_progress
  [[ -z $mtf_names ]] && ((mtf_bytes == 0)) && return
  mtf_publish "$mtf_attempt_dir/before.txt" "metrics $((mtf_bytes))"$'\n'"${mtf_names%$'\n'}"
}

# The first attempt that counts goes into mtf_counts_from: those before somebody asked for the run again do not.
mtf_look_for_asking() {
  local file number
  mtf_counts_from=1
  for file in "$mtf_run_dir"/asked/*.json; do
    number=${file##*/}
    number=${number%.json}
    [[ $number =~ ^[1-9][0-9]*$ ]] && ((number > mtf_counts_from)) && mtf_counts_from=$number
  done
}

# Whether nothing has come of the attempts that count from number $1 on.
mtf_is_stalled() {
  local before=0 names=$'\n' name number
  (($1 >= mtf_counts_from)) || return 1
  for ((number = $1; number < $1 + mtf_max_stalled - 1; number++)); do
    [[ -d $mtf_run_dir/attempts/$number ]] || return 1 # its turn in a shared job had not come: they are not so many
  done
  mtf_read "$mtf_run_dir/attempts/$1/before.txt"
  if [[ $mtf_text =~ ^metrics\ ([0-9]+)$'\n' ]]; then
    before=${BASH_REMATCH[1]}
    names=$'\n'${mtf_text#*$'\n'}
  fi
  mtf_look_at_progress
  ((mtf_bytes <= before)) || return 1
  while [[ -n $mtf_names ]]; do
    name=${mtf_names%%$'\n'*}
    [[ $names == *$'\n'"$name"$'\n'* ]] || return 1
    mtf_names=${mtf_names#*$'\n'}
  done
}

# Whether $2 ends of the kind $1 are more than the limit $3, of the setting $5; $4 says what they were.
mtf_exceeds() {
  local times="$2 times"
  [[ -n $3 ]] && (($2 > $3)) || return 1
  (($2 == 1)) && times=once
  mtf_limit="\"$1\""
  mtf_why="$4 $times, and $5 is $3"
}

# Whether the run has had its chances; mtf_why says how, mtf_limit which budget is used up. Where so many attempts in a
# row must have brought something, the first of them is number $1. What a number counts is told by mtf_slurm/policy.py.
mtf_is_spent() {
  local folder preempted=0 late=0 lost=0 failed=0
  mtf_look_for_asking
  for folder in "$mtf_run_dir"/attempts/*/; do
    folder=${folder%/}
    [[ ${folder##*/} =~ ^[1-9][0-9]*$ ]] && ((${folder##*/} >= mtf_counts_from)) || continue
    mtf_read_outcome "$folder"
    # a limit has made it the last one, if Slurm had not requeued the job all the same
    [[ $mtf_outcome == do-not-requeue && $mtf_text == *'"limit": "'* && $mtf_text =~ \"exit_status\":[[:space:]]*76 ]] &&
      mtf_outcome=preempted
    case $mtf_outcome in
      preempted | wants-requeue)
        if [[ -e $folder/time-limit ]]; then late=$((late + 1)); else preempted=$((preempted + 1)); fi
        ;;
      failed) failed=$((failed + 1)) ;;
      killed) lost=$((lost + 1)) ;;
      '') ((${folder##*/} < mtf_attempt)) && lost=$((lost + 1)) ;;
    esac
  done
  mtf_exceeds preemption "$preempted" "$mtf_max_preemptions" preempted preemption.max_preemptions && return
  mtf_exceeds timeout "$late" "$mtf_max_timeouts" 'out of time' slurm.retries.timeout && return
  mtf_exceeds node_failure "$lost" "$mtf_max_node_failures" 'ended by a failing node or a kill' \
    slurm.retries.node_failure && return
  mtf_exceeds failure "$failed" "$mtf_max_failures" failed slurm.retries.failure && return
  mtf_is_stalled "$1" || return 1
  mtf_limit='"without_progress"'
  mtf_why="$mtf_max_stalled attempts in a row ended without progress; see the logs"
}

# Note if it was the end of its time that the job was stopped for; the last word of squeue's answer $1 is what is left.
mtf_look_at_time_limit() {
  local left=${1##* }
  [[ $1 == *' TimeLimit '* ]] && left=0:00
  [[ $left =~ ^(([0-9]+):)?([0-9]+):([0-9]+)$ ]] || return 0
  left=$((10#${BASH_REMATCH[2]:-0} * 3600 + 10#${BASH_REMATCH[3]} * 60 + 10#${BASH_REMATCH[4]}))
  ((left <= mtf_warning_s + 60)) && : >"$mtf_attempt_dir/time-limit"
}

# Have Slurm queue the job of the attempt again, which was preempted or failed ($1), unless the budgets are used up. One that
# runs share is queued again when all have stopped, and not for what failed.
mtf_queue_again() {
  [[ -n $mtf_sweep_dir ]] || return 0
  mtf_is_cancelled && return 0
  if [[ -n $mtf_shared ]]; then
    local answer= # many runs stop at once: Slurm is asked only where it matters whether that is the end of their time
    [[ -n $mtf_max_timeouts$mtf_max_preemptions ]] && answer=$(mtf_ask_for_job 2>/dev/null)
    [[ $1 == preempted ]] && mtf_is_held_back "$1" "$answer"
  elif ! mtf_requeue "$1" && [[ $1 == preempted ]]; then
    mtf_say_not_queued
  fi
  return 0
}

mtf_ask_for_job() {
  squeue --noheader --jobs="$mtf_job_id" --format='%T %r %L'
}

# Whether the budgets of the run keep the attempt, which was preempted or failed ($1), from being followed by another one;
# $2 is what squeue says of the job.
mtf_is_held_back() {
  [[ $1 == preempted ]] && mtf_look_at_time_limit "$2"
  mtf_is_spent $((mtf_attempt - mtf_max_stalled + 1)) || return 1
  [[ $1 != preempted ]] || mtf_say_end do-not-requeue 76 "$mtf_why" "$mtf_limit"
}

mtf_say_not_queued() {
  mtf_say_end wants-requeue 75 "the state is saved, but Slurm does not requeue the job: $mtf_answer"
}

# Have Slurm queue the job again, unless it does so already, the job is to end, or that is the job of an attempt, which was
# preempted or failed ($1), and the budgets are used up. If Slurm does not, why goes into mtf_answer.
mtf_requeue() {
  local answer pause=1 deadline=$((SECONDS + mtf_requeue_timeout_s))
  while :; do
    if answer=$(mtf_ask_for_job 2>&1); then
      [[ -n ${1-} ]] && mtf_is_held_back "$1" "$answer" && return 0
      case $answer in
        'RUNNING '* | 'SIGNALING '* | 'RESIZING '* | *' TimeLimit '*) ;;
        *) return 0 ;; # cancelled, or requeued by Slurm itself: neither is for us to change
      esac
      answer=$(scontrol requeue "$mtf_job_id" 2>&1) && return 0
    fi
    mtf_may_pass "$answer" && ((SECONDS < deadline)) || break
    printf 'mtf: cannot requeue yet: %s\n' "$answer"
    sleep $pause
    pause=$((pause < 16 ? 2 * pause : 16))
  done
  mtf_answer=${answer##*$'\n'}
  return 1
}

