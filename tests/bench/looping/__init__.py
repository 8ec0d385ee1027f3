"""The same training, written by hand, for our trainer and for others, each in a process that trains in turn."""
