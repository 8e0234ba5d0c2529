"""Frozen CLIPs: loading them, and one tower for each family of image sides."""
