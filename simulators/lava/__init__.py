"""The `lava` backend: stock Lava processes in a worker process of their own.

`backend` and `client` run in the user's process and never import Lava; `worker`, `network`, `compat` and
`processes` run in the worker, which never imports torch.
"""
