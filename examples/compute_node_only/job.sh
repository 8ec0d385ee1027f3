#!/bin/bash
#SBATCH --job-name=digits
#SBATCH --time=00:10:00
#SBATCH --output=digits-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@60
# A job of one's own for train.py, without any launcher: `sbatch job.sh`, in this folder. A minute before the time limit
# the training gets SIGUSR1, saves and ends with status 75, which says "run me again".
status=0
srun python train.py --config config.json || status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
