
# Finds the run that this task stands for and hands over to its job.sh. Any POSIX shell will do.
mtf_fail() {
  printf 'mtf: %s\n' "$1" >&2
  exit 1
}

if [ "$mtf_is_array" = 1 ]; then
  mtf_index=${SLURM_ARRAY_TASK_ID:-}
else
  mtf_index=0
  unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID # of a job that this one was submitted from
fi
case $mtf_index in
  '' | *[!0-9]*) mtf_fail "SLURM_ARRAY_TASK_ID='$mtf_index' is not the number of a task" ;;
esac
mtf_tasks=$mtf_sweep_dir/submissions/$mtf_token/$mtf_number.tasks
mtf_line=$(sed -n "$((mtf_index + 1))p" "$mtf_tasks") || mtf_fail "cannot read $mtf_tasks on $(uname -n)"
case $mtf_line in
  [1-9]*' '?*) ;;
  *) mtf_fail "$mtf_tasks has no line for task $mtf_index" ;;
esac
unset MTF_JOB_ID
export MTF_TOKEN="$mtf_token" MTF_FIRST_ATTEMPT="${mtf_line%% *}" MTF_SWEEP_DIR="$mtf_sweep_dir"
# exec, for Slurm sends its signals to this very process
exec bash "$mtf_sweep_dir/runs/${mtf_line#* }/job.sh"
