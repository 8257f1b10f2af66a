"""Training of the spiking actor: torch modules, TD3, replay, normalisation, checkpoints, carbon.

May import `spikerl_deploy`, never `exporters` or `simulators`. Importing this package loads no torch.
"""
