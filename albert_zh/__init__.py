"""The library behind the commands of this repository."""
