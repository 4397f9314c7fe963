"""`trefoil bench`: how fast it is on this machine, over real processes. One file per sub-command."""
