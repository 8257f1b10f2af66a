"""`python -m spikerl_deploy` is `spikerl`."""

from spikerl_deploy.cli import main

main()
