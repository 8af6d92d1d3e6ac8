"""What a model is worth: metrics, behavioural cases, the measurement of a scorer, and the gate that
decides.
"""
