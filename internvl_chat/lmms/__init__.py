"""The plug-in for lmms-eval: any model of this project as its model, and the tasks that it lacks."""
