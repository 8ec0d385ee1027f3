"""Real trainings under a real Slurm that takes their nodes away."""
