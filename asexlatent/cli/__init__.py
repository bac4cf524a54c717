"""The commands. Nothing here is imported by the rest of the package."""
