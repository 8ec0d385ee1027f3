"""Submissions to a real Slurm in trouble, and what is found of them afterwards."""
