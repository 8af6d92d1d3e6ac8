"""Evaluation of a model: metrics, perturbations, behavioural tests, measurement of a scorer, and the gate."""
