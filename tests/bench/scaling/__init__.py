"""What `scale.py` is made of: sweeps of any size, and calls that are measured and counted."""
