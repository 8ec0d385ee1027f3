"""One task, written for our trainer and for others of the field, each resumed as its documentation says."""
