"""Attacks on privacy and on the model, to be run against what this code base really sends."""
