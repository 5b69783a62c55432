"""The ways to tell the model which object is meant. The folder is the list: a file is one, under the file's name."""
