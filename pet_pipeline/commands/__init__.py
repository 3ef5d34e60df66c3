"""The commands of `pet`, one file each."""
