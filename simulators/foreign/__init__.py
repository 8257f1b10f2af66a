"""The exported file in other projects' runtimes, each through its own NIR reader. They are optional and pinned."""
