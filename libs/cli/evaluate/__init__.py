"""`trefoil evaluate`: the paper's table on a data set, from training alone to encrypted prediction."""
