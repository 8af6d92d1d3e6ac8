"""The servers that ours is compared with, each written as its own documentation advises; `servers.py` starts
and ends all of them.

Each takes {"text": "..."} at /classify and {"texts": ["...", ...]} at /classify/batch, computes the same ONNX
file with `model.Model`, and reads what was chosen for it from PEER_<NAME> in the environment: its workers are
processes that it starts itself. docs/load-tests.md says which pages advise what.
"""
