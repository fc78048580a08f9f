"""Files of requests done offline: the runner that server and command line share, and its state."""
