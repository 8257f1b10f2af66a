"""Execution of a policy: the backend protocol, the backends, the closed loop and conformance.

May import `spikerl_deploy` (the torch backend also `training`), never `exporters`.
Importing this package loads neither torch nor Lava.
"""
