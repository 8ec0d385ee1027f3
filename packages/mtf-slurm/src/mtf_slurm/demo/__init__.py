"""The demo: a sweep on real data, two of whose runs are killed on the way, and the proof that nothing came of it."""
