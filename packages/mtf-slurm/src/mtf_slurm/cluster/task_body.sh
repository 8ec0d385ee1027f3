
# Finds the run that this task stands for and hands over to its job.sh: here, where nothing but the template that is built
# in came before, else to a bash of its own. Until then, any POSIX shell will do. A task of several runs has a script of
# its own that does them.
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
if [ "$mtf_is_shared" = 1 ]; then
  unset MTF_JOB_ID
  export MTF_TOKEN="$mtf_token" MTF_SWEEP_DIR="$mtf_sweep_dir"
  exec bash "$mtf_sweep_dir/submissions/$mtf_token/$mtf_number.task.sh" "$mtf_index"
fi
mtf_tasks=$mtf_sweep_dir/submissions/$mtf_token/$mtf_number.tasks
if [ "$mtf_is_built_in" = 1 ]; then
  mapfile -t -s "$mtf_index" -n 1 mtf_line <"$mtf_tasks" # a program less, in each of many tasks
else
  mtf_line=$(sed -n "$((mtf_index + 1))p" "$mtf_tasks")
fi || mtf_fail "cannot read $mtf_tasks on $(uname -n)"
case ${mtf_line:-} in
  [1-9]*' '?*) ;;
  *) mtf_fail "$mtf_tasks has no line for task $mtf_index" ;;
esac
unset MTF_JOB_ID
export MTF_TOKEN="$mtf_token" MTF_FIRST_ATTEMPT="${mtf_line%% *}" MTF_SWEEP_DIR="$mtf_sweep_dir"
# in this process, for Slurm sends it its signals
[ "$mtf_is_built_in" = 1 ] || exec bash "$mtf_sweep_dir/runs/${mtf_line#* }/job.sh"
. "$mtf_sweep_dir/runs/${mtf_line#* }/job.sh"
