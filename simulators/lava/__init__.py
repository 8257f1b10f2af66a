"""The backends `lava`, `lava-stock` and `lava-float`: Lava in a worker process of its own.

`backend`, `float_backend`, `session`, `client`, `install`, `graph_client` and `graph_wire` run in the user's process
and never import Lava; `worker`, the `*network` modules, `compat` and `processes` run in the worker, which never
imports torch.
"""
