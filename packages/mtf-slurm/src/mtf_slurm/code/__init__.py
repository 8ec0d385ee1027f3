"""Where the code of a job comes from: snapshots of a repository, and the copies that jobs run."""
