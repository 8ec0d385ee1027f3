"""Distributed trainings that are killed: for `rank_kills.py`."""
