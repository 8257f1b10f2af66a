"""Export of a policy: quantizers and writers. The policy file is the seam to `simulators`.

May import `spikerl_deploy`, never `simulators`.
"""
