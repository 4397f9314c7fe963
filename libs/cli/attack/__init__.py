"""`trefoil attack`: attacks on privacy and on the model, on this machine, with pictures and figures."""
