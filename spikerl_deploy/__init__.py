"""Ground of the toolchain: the policy, its file format, the host codec, energy constants, errors.

Imports nothing from the three packages beside it, and neither torch nor gymnasium.
"""

from spikerl_deploy._siblings import check_siblings
from spikerl_deploy._version import __version__

check_siblings(__file__)

__all__ = ["__version__"]
