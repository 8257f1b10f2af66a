"""Lava processes of our own. Alone in their folder: Lava imports every file beside a process."""
