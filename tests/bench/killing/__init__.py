"""Kills training processes at chosen moments and looks at what becomes of them: for `kills.py` and `kills_peers.py`."""
