
# Whether the command ended for want of memory: the kernel counts what it kills for that in each control group. Slurm makes
# one for a job where it limits memory, and forgets within minutes what it knows itself of the end.

# The control group that tells goes into mtf_group, empty without one; mtf_group_is_ours where nothing but this job is in
# it. In version 2 a group counts for those below it, and that of the job includes the tasks of srun.
# Source: cgroups(7), memory.rst and cgroup-v2.rst of the kernel's documentation.
mtf_find_group() {
  local line lines=()
  mtf_group=
  mtf_group_is_ours=
  mapfile -t lines 2>/dev/null <"/proc/$$/cgroup"
  for line in "${lines[@]}"; do
    if [[ $line =~ ^[0-9]+:([^:]*,)?memory(,[^:]*)?:(.*)$ ]]; then
      mtf_group=/sys/fs/cgroup/memory${BASH_REMATCH[3]}
      mtf_count=memory.oom_control
      mtf_peak=memory.max_usage_in_bytes
      break
    elif [[ $line == 0::* ]]; then
      mtf_group=/sys/fs/cgroup${line#0::}
      [[ $mtf_group =~ ^(.*/job_[0-9]+)/ ]] && mtf_group=${BASH_REMATCH[1]}
      mtf_count=memory.events
      mtf_peak=memory.peak
    fi
  done
  [[ -n ${SLURM_JOB_ID:-} && $mtf_group/ == *"/job_$SLURM_JOB_ID/"* ]] && mtf_group_is_ours=1
}

# How many processes of that group were killed for want of memory goes into mtf_kills; nothing if nobody counts.
mtf_count_kills() {
  local line lines=()
  mtf_kills=
  [[ -n $mtf_group ]] && mapfile -t lines 2>/dev/null <"$mtf_group/$mtf_count"
  for line in "${lines[@]}"; do
    [[ $line =~ ^oom_kill\ ([0-9]+)$ ]] && mtf_kills=${BASH_REMATCH[1]}
  done
}

# Whether the command ended for want of memory, which is then noted beside the receipt; mtf_figure says how much was in
# use at most. In a group that others share it must have been killed itself, else it may have lost any of its processes.
mtf_has_starved() {
  local peak
  mtf_count_kills
  [[ -n $mtf_kills_before ]] && ((mtf_kills > mtf_kills_before)) || return 1
  [[ $mtf_signal == KILL || (-n $mtf_group_is_ours && -z $mtf_shared) ]] || return 1
  mtf_figure=
  mtf_read "$mtf_group/$mtf_peak"
  if [[ $mtf_text =~ ^([0-9]+) ]]; then
    peak=$((BASH_REMATCH[1] / 1048576))
    mtf_figure="up to ${peak}M in use"
    ((peak < 10240)) || mtf_figure="up to $((peak / 1024)).$((peak % 1024 * 10 / 1024))G in use"
  fi
  printf '%s\n' "$mtf_figure" >"$mtf_attempt_dir/out-of-memory"
}
