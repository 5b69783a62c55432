"""A family that the project does not have, in the files that docs/adding/family.md asks for: LLaVA with a template."""
