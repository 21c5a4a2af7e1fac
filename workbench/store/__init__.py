"""Folders that survive being killed: shards that appear whole, and one manifest a folder."""
