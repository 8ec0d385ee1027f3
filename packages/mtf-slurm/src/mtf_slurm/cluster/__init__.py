"""Everything that speaks Slurm: what its programs are told, and what they answer."""
