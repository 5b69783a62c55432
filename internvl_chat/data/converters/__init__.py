"""From other projects' data to this project's records: a module a source, see docs/adding/converter.md."""
