"""Modules:

- `bearclass.gather.many_machines`: A list of addresses too long for one machine goes out to img2dataset, and comes back as a dataset with its manifest."""

__version__ = "0.1.0"
